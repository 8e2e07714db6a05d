//! The first membership of a new group. Every founding replica may write it, since all of them write the
//! same. A replica that was added later never does, because the group has a history that it must receive.

use std::collections::BTreeMap;
use std::time::Duration;

use ropewalk_machines::meta::ClusterView;
use ropewalk_machines::meta::view::{PartitionView, Place};
use ropewalk_proto::ids::ReplicaId;
use ropewalk_raft_store::Broker;
use tokio::time::Instant;

use super::Partition;

/// Time for which a replica that has founded its group requests votes at every check. It does not wait for
/// the election timeout, because its peers may start a moment later.
const EAGER_FOR: Duration = Duration::from_secs(10);

/// State of a replica in the founding of its group.
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

    /// Founds the group if it is this replica's turn; called until the group has a leader.
    pub(super) async fn look(&mut self, partition: &Partition, wish: &PartitionView) {
        if self.done {
            return;
        }
        // The first entry is the founding membership; any other came from a leader. A replica that has just
        // transferred leadership knows no leader for a moment, and must not start an election because of it.
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
                    tracing::debug!(
                        partition = %partition.id,
                        %error,
                        "group was already initialized by another replica"
                    )
                }
            }
        }
    }

    /// Returns true if this replica may found the group now: the preferred replica at once, and each other
    /// one later than the one before it.
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

/// Returns the founding members. They have no addresses: an address may change between two founding replicas'
/// reads, and the first entry must be the same on all. Peers find addresses in the metadata.
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

/// Returns places as Raft members; without an address if the metadata does not know the node.
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
