//! Raft between nodes: one connection to each peer, shared by all groups.
//!
//! Outgoing: [`Peers`] keeps a connection to each address ([`connector`]). On it are two lanes ([`append_stream`]): one for
//! entries, one for the heartbeats of all groups. openraft sends through one [`network`] per replica.
//!
//! Incoming: [`ReplicaRouter`] passes each call that the [`service`] receives to the replica that it names
//! ([`raft_handle`]). [`convert`] converts and checks messages in both directions.
//!
//! Nothing about topics, records or clients belongs here: a replica is a number, a command is bytes.

mod append_stream;
mod backoff;
mod coalesce;
mod connector;
pub mod convert;
mod network;
mod peers;
mod raft_handle;
mod rate_limiter;
mod replica_router;
mod service;
mod snapshot;
mod trace;

use std::time::Duration;

use tonic::transport::Server;

use crate::config::Limits;

pub use network::{Claims, Network, Networks, Newcomers};
pub use peers::Peers;
pub use raft_handle::RaftHandle;
pub use replica_router::ReplicaRouter;
pub use service::RaftService;

/// Maximum number of AppendEntries of one group in flight to one replica.
const PIPELINE: usize = 8;
/// Maximum bytes of AppendEntries in flight on one lane, each way.
const LANE_BYTES: usize = 64 << 20;
/// Maximum number of calls that wait to be written to one lane.
const LANE_QUEUE: usize = 1024;
/// Maximum number of calls of one lane that a node has received and not answered.
const LANE_CALLS: usize = 8192;
/// Maximum number of AppendEntries that wait for one replica here, beyond its [`PIPELINE`].
const REPLICA_QUEUE: usize = 32;
/// Maximum size of a checkpoint in one message; larger ones are sent in parts.
const CHECKPOINT_BYTES: usize = 64 << 20;
/// Size of one part of a checkpoint.
const PART_BYTES: usize = 1 << 20;
/// The largest message on the wire: a checkpoint with its other fields.
const MESSAGE_BYTES: usize = CHECKPOINT_BYTES + (1 << 20);
/// Maximum number of heartbeats, or of answers to them, in one message.
const GATHER_CALLS: usize = 2048;
/// Minimum interval between heartbeat messages, so that those of many groups share one.
const GATHER_PAUSE: Duration = Duration::from_millis(5);
/// Maximum bytes that a peer may send ahead on one stream before this node reads them.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// The largest HTTP/2 frame: large enough to be cheap, small enough not to delay a heartbeat.
const FRAME_BYTES: u32 = 128 << 10;
/// Interval between keep-alive pings on a connection.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Maximum number of remembered addresses; those in use are never forgotten.
const PEERS: usize = 1024;

/// Maximum time of one call to a peer.
fn call_timeout(limits: &Limits) -> Duration {
    Duration::from_millis(limits.peer_rpc_timeout_ms.max(1))
}

/// A gRPC server with windows, frames and keep-alive that suit peers, and clients as well.
pub fn server(limits: &Limits) -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE * 5))
        .http2_keepalive_timeout(Some(call_timeout(limits) * 5))
}
