//! Metrics of the traffic to other nodes. Callers take a handle once for each node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_proto::ids::NodeId;
use ropewalk_raft_store::Histogram;

use super::Count;
use crate::log_limiter::LogLimiter;

/// Metrics for all other nodes.
#[derive(Debug)]
pub struct PeerTraffic {
    /// Time from sending an AppendEntries with entries to its answer: the follower has them on disk.
    pub replicate: Histogram,
    /// Limiter for the log line about a checkpoint that is too large to send.
    pub checkpoint_not_sent: LogLimiter,
    nodes: Mutex<BTreeMap<NodeId, Arc<PeerNode>>>,
}

/// Metrics for one other node.
#[derive(Debug, Default)]
pub struct PeerNode {
    round_trip_nanos: Count,
    failures: Count,
}

impl Default for PeerTraffic {
    fn default() -> PeerTraffic {
        PeerTraffic {
            replicate: Histogram::latencies(),
            checkpoint_not_sent: LogLimiter::seldom(),
            nodes: Mutex::default(),
        }
    }
}

impl PeerTraffic {
    /// The handle of a node.
    pub fn of(&self, node: NodeId) -> Arc<PeerNode> {
        self.nodes.lock().entry(node).or_default().clone()
    }

    /// All handles in use. Forgets those that are no longer in use.
    pub fn all(&self) -> Vec<(NodeId, Arc<PeerNode>)> {
        let mut nodes = self.nodes.lock();
        nodes.retain(|_, node| Arc::strong_count(node) > 1);
        nodes.iter().map(|(id, node)| (*id, node.clone())).collect()
    }
}

impl PeerNode {
    /// Records an answered report and its round-trip time.
    pub fn answered(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.round_trip_nanos.set(nanos.max(1));
    }

    /// Records a report without an answer.
    pub fn failed(&self) {
        self.failures.one();
    }

    /// Round-trip time of the last answered report, if there was one.
    pub fn round_trip(&self) -> Option<Duration> {
        let nanos = self.round_trip_nanos.get();
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    /// Number of reports without an answer.
    pub fn failures(&self) -> u64 {
        self.failures.get()
    }
}
