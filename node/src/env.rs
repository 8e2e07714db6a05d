//! The one seam to the world: wall time, disk, network, randomness. Everything above it is the same code in
//! production and in the simulator. Monotonic time comes from tokio.

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

/// The outside world, as handed to a node.
#[derive(Debug, Clone)]
pub struct Env {
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Database of the data directory, already open.
    pub disk: Arc<dyn Disk>,
    /// Sockets.
    pub net: Arc<dyn Net>,
    /// Seed of all randomness.
    pub seed: u64,
    /// Returns the number of log lines that the log writer dropped for want of room.
    pub log_lines_lost: fn() -> u64,
}

/// Wall time. It may jump, in both directions.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> i64;

    /// Earliest time that it may be, in the same unit. Expiry of old data uses this.
    fn earliest_ms(&self) -> i64 {
        self.now_ms()
    }
}

/// Sockets.
pub trait Net: Send + Sync + fmt::Debug + 'static {
    /// Listens at `host:port`; port 0 takes a free one.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
    /// Listens likewise, for probes and scrapers, which have no client certificate.
    fn listen_for_operators<'a>(
        &'a self,
        address: &'a str,
    ) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        self.listen(address)
    }
    /// Listens likewise without TLS, for a kubelet's probes.
    fn listen_for_probes<'a>(
        &'a self,
        address: &'a str,
    ) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        self.listen(address)
    }
    /// Connects to `host:port`.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>>;
    /// End of the validity of this node's certificate, in ms since 1970; `None` without one.
    fn certificate_not_after_ms(&self) -> Option<i64> {
        None
    }
    /// Log lines about connections that the rate limit left out.
    fn log_lines_left_out(&self) -> u64 {
        0
    }
}

/// A bound socket.
pub trait Listener: Send + fmt::Debug + 'static {
    /// Returns the next connection, and the address it comes from.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Connection, String)>>;
    /// Bound address, `host:port`.
    fn local_address(&self) -> String;
}

/// The bytes of a connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// One connection.
pub type Connection = Box<dyn Stream>;
