//! Founding of a partition's group by the replicas that the metadata names, checked at even intervals.

use std::collections::BTreeMap;

use ropewalk_machines::meta::MetadataImage;
use ropewalk_machines::meta::view::{PartitionImage, ReplicaPlacement};
use ropewalk_proto::ids::ReplicaId;
use ropewalk_raft_store::RaftNode;
use tokio::time::Instant;

use super::Partition;
use crate::raft::{EagerElections, found, patience};

/// State of a replica in the founding of its group.
#[derive(Debug)]
pub(super) struct Founding {
    begun: Instant,
    done: bool,
    /// Elections of the group, once this replica has founded it. Their time counts from `begun`.
    eager: Option<EagerElections>,
}

impl Founding {
    pub(super) fn new() -> Founding {
        Founding {
            begun: Instant::now(),
            done: false,
            eager: None,
        }
    }

    /// Founds the group if it is this replica's turn; called until the group has a leader.
    pub(super) async fn look(&mut self, partition: &Partition, wish: &PartitionImage) {
        if self.done {
            return;
        }
        // The first entry is the founding membership; any other came from a leader. A replica that has just
        // transferred leadership knows no leader for a moment, and must not start an election because of it.
        let led = partition.with_metrics(|metrics| {
            metrics.current_leader.is_some() || metrics.last_log_index.is_some_and(|last| last > 0)
        });
        let initialized = partition
            .replica
            .raft
            .is_initialized()
            .await
            .unwrap_or(true);
        if led || (initialized && self.eager.is_none()) {
            self.done = true;
        } else if let Some(eager) = &self.eager {
            self.done = eager.are_over();
            let _ = eager.request(&partition.replica.raft).await;
        } else if self.is_turn(partition, wish) {
            let members = founders(&wish.founding);
            let founded = found(&partition.replica.raft, members, &partition.id.to_string()).await;
            self.eager = founded.then(|| EagerElections::new(self.begun));
        }
    }

    /// Returns true if this replica may found the group now: the preferred replica at once, and each other
    /// one later than the one before it.
    fn is_turn(&self, partition: &Partition, wish: &PartitionImage) -> bool {
        let place = wish
            .founding
            .iter()
            .position(|place| place.replica == partition.id.replica);
        let Some(place) = place else { return false };
        self.begun.elapsed() >= patience(&partition.host.limits, place)
    }
}

/// Returns the founding members. They have no addresses: an address may change between two founding replicas'
/// reads, and the first entry must be the same on all. Peers find addresses in the metadata.
fn founders(places: &[ReplicaPlacement]) -> BTreeMap<ReplicaId, RaftNode> {
    let broker = |place: &ReplicaPlacement| RaftNode {
        node_id: place.node,
        address: String::new(),
    };
    places
        .iter()
        .map(|place| (place.replica, broker(place)))
        .collect()
}

/// Returns places as Raft members; without an address if the metadata does not know the node.
pub(super) fn brokers(
    places: &[ReplicaPlacement],
    view: &MetadataImage,
) -> BTreeMap<ReplicaId, RaftNode> {
    let broker = |place: &ReplicaPlacement| RaftNode {
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
