//! The one seam to the world: wall time, disk, network, randomness. Everything above it is the
//! same code in production and in the simulator. Monotonic time is tokio's.

mod busy;
mod clock;
mod connections;
mod incoming;
mod process;
mod tcp;
pub mod tls;

use std::fmt;
use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use ropewalk_raft_store::Disk;
use tokio::io::{AsyncRead, AsyncWrite};

pub use busy::busy;
pub use clock::SystemClock;
pub use connections::{Call, Caller, ConnectionBounds, Connections};
pub use incoming::{Accepted, Incoming};
pub use process::{ProcessUse, process_use};
pub use tcp::TcpNet;

/// What a node is given instead of reaching for it.
#[derive(Debug, Clone)]
pub struct Env {
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// The data directory's database, already open.
    pub disk: Arc<dyn Disk>,
    /// Sockets.
    pub net: Arc<dyn Net>,
    /// Where all randomness comes from.
    pub seed: u64,
    /// How many lines of the log whoever writes it had no room for.
    pub log_lines_lost: fn() -> u64,
}

/// Wall time. It may jump, in both directions.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> i64;

    /// The earliest it may be, in the same unit: what is too old to keep is decided by this.
    fn earliest_ms(&self) -> i64 {
        self.now_ms()
    }
}

/// Sockets.
pub trait Net: Send + Sync + fmt::Debug + 'static {
    /// Listens at `host:port`; port 0 takes a free one.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
    /// The same, for probes and scrapers, which have no certificate to show.
    fn listen_for_operators<'a>(
        &'a self,
        address: &'a str,
    ) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        self.listen(address)
    }
    /// The same without TLS, for a kubelet's probes.
    fn listen_for_probes<'a>(
        &'a self,
        address: &'a str,
    ) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        self.listen(address)
    }
    /// Connects to `host:port`.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>>;
    /// When the certificate this node shows ends to be valid, in ms since 1970; `None` without one.
    fn certificate_not_after_ms(&self) -> Option<i64> {
        None
    }
    /// Lines of the log on its connections that were left out.
    fn log_lines_left_out(&self) -> u64 {
        0
    }
}

/// A bound socket.
pub trait Listener: Send + fmt::Debug + 'static {
    /// The next connection, and the address it comes from.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Connection, String)>>;
    /// The address bound, `host:port`.
    fn local_address(&self) -> String;
}

/// The bytes of a connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// One connection.
pub type Connection = Box<dyn Stream>;
