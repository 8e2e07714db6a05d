//! Raft between nodes: one connection to each peer, shared by all groups.
//!
//! Outgoing: [`Peers`] keeps a connection to each address ([`gate`]), and on it two lanes
//! ([`lane`]): one for entries, one on which the heartbeats of all groups travel together. openraft
//! speaks through a [`network`] per replica. Incoming: [`Inbound`] hands what the [`service`]
//! receives to the replica it names ([`group`]). [`convert`] stands between the two, and checks.
//!
//! Nothing of topics, records or clients may come in here: a replica is a number, a command bytes.

mod allowance;
mod backoff;
pub mod convert;
mod gate;
mod gather;
mod group;
mod inbound;
mod lane;
mod network;
mod peers;
mod service;
mod snapshot;
mod trace;

use std::time::Duration;

use tonic::transport::Server;

use crate::config::Limits;

pub use group::RaftGroup;
pub use inbound::Inbound;
pub use network::{Claims, Network, Networks, Newcomers};
pub use peers::Peers;
pub use service::RaftService;

/// AppendEntries of one group that may be on their way to one replica at a time.
const PIPELINE: usize = 8;
/// Bytes of AppendEntries under way on one lane, each way.
const LANE_BYTES: usize = 64 << 20;
/// Calls waiting to be written to one lane.
const LANE_QUEUE: usize = 1024;
/// Calls of one lane that a node has taken in and not answered yet.
const LANE_CALLS: usize = 8192;
/// AppendEntries waiting for one replica here, those of its [`PIPELINE`] apart.
const REPLICA_QUEUE: usize = 32;
/// The largest checkpoint sent in one message; larger ones go in parts.
const CHECKPOINT_BYTES: usize = 64 << 20;
/// Bytes of a checkpoint in one part of it.
const PART_BYTES: usize = 1 << 20;
/// The largest message on the wire: a checkpoint with what goes along.
const MESSAGE_BYTES: usize = CHECKPOINT_BYTES + (1 << 20);
/// Heartbeats, or answers to them, in one message.
const GATHER_CALLS: usize = 2048;
/// Messages of heartbeats are at least this far apart, so that those of many groups meet.
const GATHER_PAUSE: Duration = Duration::from_millis(5);
/// How much a peer may send ahead of our reading it, on one stream.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// The largest HTTP/2 frame: large enough to be cheap, small enough not to hold up a heartbeat.
const FRAME_BYTES: u32 = 128 << 10;
/// How often a connection is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Addresses remembered; those in use are never forgotten.
const PEERS: usize = 1024;

/// The bound of one call to a peer.
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
