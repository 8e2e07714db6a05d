//! The one seam to the environment: wall time, disk, network, randomness. Everything above it is the same
//! code in production and in the simulator. Monotonic time is tokio's.

mod clock;
mod connections;
mod cpu_bound;
mod incoming;
mod process;
mod tcp;
pub mod tls;

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use ropewalk_raft_store::Disk;
use ropewalk_tls::PeerCertificate;
use tokio::io::{AsyncRead, AsyncWrite};

pub use clock::SystemClock;
pub use connections::{Call, ConnectionBounds, Connections, Remote};
pub use cpu_bound::cpu_bound;
pub use incoming::{Accepted, Incoming};
pub use process::{ProcessUse, process_use};
pub use tcp::TcpNet;

/// The environment of a node, passed in by its caller.
#[derive(Debug, Clone)]
pub struct Env {
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// The data directory's database, already open.
    pub disk: Arc<dyn Disk>,
    /// Sockets.
    pub net: Arc<dyn Net>,
    /// Seed of all randomness.
    pub seed: u64,
    /// Number of log lines that the log's writer had no room for.
    pub log_lines_lost: fn() -> u64,
}

/// Wall time. It may jump in both directions.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> i64;

    /// The earliest time it may be, in the same unit. It decides which records are too old to keep.
    fn earliest_ms(&self) -> i64 {
        self.now_ms()
    }
}

/// Sockets.
pub trait Net: Send + Sync + fmt::Debug + 'static {
    /// Listens at `host:port`; port 0 takes a free one.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
    /// The same for probes and scrapers, which have no certificate.
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
    /// Expiry of this node's certificate, in ms since 1970; `None` without one.
    fn certificate_not_after_ms(&self) -> Option<i64> {
        None
    }
    /// Number of suppressed log lines about its connections.
    fn log_lines_left_out(&self) -> u64 {
        0
    }
}

/// A bound socket.
pub trait Listener: Send + fmt::Debug + 'static {
    /// Waits for the next connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Arrival>>;
    /// The address bound, `host:port`.
    fn local_address(&self) -> String;
}

/// An accepted connection.
pub struct Arrival {
    /// Its bytes.
    pub connection: Connection,
    /// Address of the remote end, `host:port`.
    pub from: String,
    /// Certificate of the remote end.
    pub certificate: ShownCertificate,
}

/// Certificate of a remote end, set by the handshake. It stays empty without TLS, and on a port that asks for no
/// certificate.
pub type ShownCertificate = Arc<OnceLock<PeerCertificate>>;

impl Arrival {
    /// A connection without TLS.
    pub fn plain(connection: Connection, from: String) -> Arrival {
        Arrival {
            connection,
            from,
            certificate: ShownCertificate::default(),
        }
    }
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arrival({})", self.from)
    }
}

/// The bytes of a connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// One connection.
pub type Connection = Box<dyn Stream>;
