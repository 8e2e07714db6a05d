//! What is counted of the way to other nodes. A handle is taken once for each of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_proto::ids::NodeId;
use ropewalk_raft_store::Histogram;

use super::Count;
use crate::valve::Valve;

/// What is counted of all other nodes.
#[derive(Debug)]
pub struct PeerTraffic {
    /// From an AppendEntries with entries in it until its answer: the follower has them on its disk.
    pub replicate: Histogram,
    /// A checkpoint is too large to be sent.
    pub checkpoint_not_sent: Valve,
    nodes: Mutex<BTreeMap<NodeId, Arc<PeerNode>>>,
}

/// What is counted of one other node.
#[derive(Debug, Default)]
pub struct PeerNode {
    round_trip_nanos: Count,
    failures: Count,
}

impl Default for PeerTraffic {
    fn default() -> PeerTraffic {
        PeerTraffic {
            replicate: Histogram::latencies(),
            checkpoint_not_sent: Valve::seldom(),
            nodes: Mutex::default(),
        }
    }
}

impl PeerTraffic {
    /// The handle of a node.
    pub fn of(&self, node: NodeId) -> Arc<PeerNode> {
        self.nodes.lock().entry(node).or_default().clone()
    }

    /// All handles that are held, and what was left by those that are not is forgotten.
    pub fn all(&self) -> Vec<(NodeId, Arc<PeerNode>)> {
        let mut nodes = self.nodes.lock();
        nodes.retain(|_, node| Arc::strong_count(node) > 1);
        nodes.iter().map(|(id, node)| (*id, node.clone())).collect()
    }
}

impl PeerNode {
    /// A report arrived, and this is how long it took, there and back.
    pub fn answered(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.round_trip_nanos.set(nanos.max(1));
    }

    /// A report did not arrive.
    pub fn failed(&self) {
        self.failures.one();
    }

    /// How long the last one took, if any arrived.
    pub fn round_trip(&self) -> Option<Duration> {
        let nanos = self.round_trip_nanos.get();
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    /// How many did not arrive.
    pub fn failures(&self) -> u64 {
        self.failures.get()
    }
}
