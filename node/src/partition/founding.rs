//! The first membership of a new group. Every founding replica may write it, since they all write
//! the same; a replica that came later never does, for the group has a history it must be given.

use std::collections::BTreeMap;
use std::time::Duration;

use ropewalk_proto::ids::ReplicaId;
use ropewalk_raft_store::Broker;
use tokio::time::Instant;

use super::Partition;
use crate::cluster::ClusterView;
use crate::cluster::view::{PartitionView, Place};

/// How long a replica that has founded its group asks for votes again at each look, instead of
/// waiting for the election timeout: its peers may have been placed a moment later.
const EAGER_FOR: Duration = Duration::from_secs(10);

/// Where a replica stands with the founding of its group.
#[derive(Debug)]
pub(super) struct Founding {
    begun: Instant,
    done: bool,
    founded: bool,
}

impl Founding {
    pub(super) fn new() -> Founding {
        Founding {
            begun: Instant::now(),
            done: false,
            founded: false,
        }
    }

    /// Founds the group if it is this replica's turn; to be called until the group has a leader.
    pub(super) async fn look(&mut self, partition: &Partition, wish: &PartitionView) {
        if self.done {
            return;
        }
        // The first entry is the founding membership; any other came from a leader. A replica that
        // has just handed over knows none for a moment, and must not stand again because of it.
        let led = partition.with_metrics(|metrics| {
            metrics.current_leader.is_some() || metrics.last_log_index.is_some_and(|last| last > 0)
        });
        let initialized = partition.raft.is_initialized().await.unwrap_or(true);
        if led || (initialized && !self.founded) {
            self.done = true;
        } else if self.founded {
            self.done = self.begun.elapsed() > EAGER_FOR;
            let _ = partition.raft.trigger().elect(true).await;
        } else if self.is_turn(partition, wish) {
            match partition.raft.initialize(founders(&wish.founding)).await {
                Ok(()) => self.founded = true,
                Err(error) => {
                    tracing::debug!(partition = %partition.id, %error, "founded by another")
                }
            }
        }
    }

    /// The preferred replica founds at once, each other one later than the one before it.
    fn is_turn(&self, partition: &Partition, wish: &PartitionView) -> bool {
        let place = wish
            .founding
            .iter()
            .position(|place| place.replica == partition.id.replica);
        let Some(place) = place else { return false };
        let patience_ms = partition.host.limits.election_timeout_ms * 2 * place as u64;
        self.begun.elapsed() >= Duration::from_millis(patience_ms)
    }
}

/// The founding members. They have no addresses: those may change between two founding replicas' looks at
/// them, and the first entry must be the same on all. Peers look addresses up in the metadata.
fn founders(places: &[Place]) -> BTreeMap<ReplicaId, Broker> {
    let broker = |place: &Place| Broker {
        node_id: place.node,
        address: String::new(),
    };
    places
        .iter()
        .map(|place| (place.replica, broker(place)))
        .collect()
}

/// Places as Raft members; without an address if the metadata knows none of the node.
pub(super) fn brokers(places: &[Place], view: &ClusterView) -> BTreeMap<ReplicaId, Broker> {
    let broker = |place: &Place| Broker {
        node_id: place.node,
        address: view
            .nodes
            .get(&place.node)
            .map(|node| node.address.clone())
            .unwrap_or_default(),
    };
    places
        .iter()
        .map(|place| (place.replica, broker(place)))
        .collect()
}
