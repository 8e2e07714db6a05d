//! The cluster's metadata in the form that every other room of the node reads.

use std::collections::{BTreeMap, BTreeSet};

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId, TopicId};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use ropewalk_proto::v1::{NodeState, TopicGrowth, TopicSettings};

/// A consistent snapshot of the metadata, as of one applied index of the metadata group.
#[derive(Debug, Clone, Default)]
pub struct MetadataImage {
    /// The snapshot's log index in the metadata group.
    pub applied: u64,
    /// Empty until the cluster is founded.
    pub cluster_id: String,
    /// Every node that ever joined, including the removed ones.
    pub nodes: BTreeMap<NodeId, NodeImage>,
    /// The highest command version that every node understands; 0 while the version of a node is unknown.
    pub understood: u32,
    /// By name.
    pub topics: BTreeMap<String, TopicImage>,
    /// Ids below this are allocated. Topics with such an id that are missing from `topics` were deleted.
    pub next_topic: TopicId,
    /// Ids below this are allocated, though some replicas with such an id may be gone. No other id is.
    pub next_replica: ReplicaId,
}

/// One node.
#[derive(Debug, Clone)]
pub struct NodeImage {
    /// Its id.
    pub id: NodeId,
    /// Its gRPC address, host:port.
    pub address: String,
    /// Its HTTP address; empty if off.
    pub http: String,
    /// Its gRPC address for external clients; empty if it has none.
    pub external: String,
    /// Its rack.
    pub rack: String,
    /// The version it runs.
    pub version: String,
    /// The state that the operator, or the controller, wants for it.
    pub state: NodeState,
    /// Its replica of the metadata group.
    pub meta_replica: ReplicaId,
}

/// One topic.
#[derive(Debug, Clone)]
pub struct TopicImage {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: TopicId,
    /// Its settings, every field filled in.
    pub settings: TopicSettings,
    /// The version of the mapping of keys to partitions that is in force.
    pub ring_version: u32,
    /// Keys map to partitions below this.
    pub ring_partitions: u32,
    /// Its growths; the last one may be in progress.
    pub growths: Vec<TopicGrowth>,
    /// By number, without gaps.
    pub partitions: Vec<PartitionImage>,
}

/// One partition: its desired replicas, and the retiring ones.
#[derive(Debug, Clone)]
pub struct PartitionImage {
    /// Its number within the topic.
    pub partition: u32,
    /// Its Raft group.
    pub group: GroupId,
    /// Its desired replicas; the first is the preferred leader.
    pub replicas: Vec<ReplicaPlacement>,
    /// Replicas that must run until the group's membership is confirmed without them.
    pub retiring: Vec<ReplicaPlacement>,
    /// Those of the replicas above that were found damaged: they must not run.
    pub damaged: Vec<ReplicaId>,
    /// The group's first replicas: its initial Raft membership.
    pub founding: Vec<ReplicaPlacement>,
}

/// One replica on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplicaPlacement {
    /// The replica.
    pub replica: ReplicaId,
    /// The node that holds it.
    pub node: NodeId,
}

impl MetadataImage {
    /// Every partition, in order of topic and number.
    pub fn partitions(&self) -> impl Iterator<Item = &PartitionImage> {
        self.topics.values().flat_map(|topic| &topic.partitions)
    }

    /// True if this view is at least as new as the membership with these members: every member id is below
    /// `next_replica`. New replicas always get higher ids and join before old ones leave.
    pub fn knows<'a>(&self, mut members: impl Iterator<Item = &'a ReplicaId>) -> bool {
        members.all(|replica| *replica < self.next_replica)
    }

    /// The topic that a request means, by its name and its id. Id 0 means any topic with the name.
    ///
    /// # Errors
    /// `TopicRecreated` if a later topic has the name. `UnknownTopic` if none has it, or if an earlier one
    /// has it: ids are allocated in order, so this view is older than the topic.
    pub fn meant(&self, name: &str, id: u64) -> Result<&TopicImage, WireError> {
        let found = self.topics.get(name).ok_or_else(|| unknown_topic(name))?;
        let has_it = found.id.0;
        if id == 0 || id == has_it || id < has_it && is_planted(PlantedBug::OldTopicId) {
            Ok(found)
        } else if id < has_it {
            Err(WireError::topic_recreated(name, id, has_it))
        } else {
            Err(WireError::new(
                ErrorCode::UnknownTopic,
                format!(
                    "topic {name:?} with id {id} is not known to this node yet; try again \
                    shortly, or ask another node"
                ),
            ))
        }
    }

    /// The partition of a topic.
    pub fn partition(&self, topic: &str, partition: u32) -> Option<&PartitionImage> {
        self.topics.get(topic)?.partitions.get(partition as usize)
    }
}

impl TopicImage {
    /// The growth in progress: not every old partition has its routing barrier yet.
    pub fn growing(&self) -> Option<&TopicGrowth> {
        self.growths
            .last()
            .filter(|growth| growth.ring_version > self.ring_version)
    }
}

impl PartitionImage {
    /// The nodes whose replicas are lost or damaged, if the others may fall short of a majority. Such a
    /// partition cannot have a leader.
    pub fn lost_majority(&self, view: &MetadataImage) -> Option<BTreeSet<NodeId>> {
        let held = self.replicas.iter().chain(&self.retiring);
        let lost = held.filter(|place| self.is_lost(place.replica, view));
        let lost: BTreeSet<NodeId> = lost.map(|place| place.node).collect();
        (!lost.is_empty() && lost.len() * 2 >= self.replicas.len()).then_some(lost)
    }

    /// True if a replica is damaged, or its node removed.
    pub fn is_lost(&self, replica: ReplicaId, view: &MetadataImage) -> bool {
        let removed = |node: NodeId| {
            let node = view.nodes.get(&node);
            node.is_none_or(|node| node.state == NodeState::Removed)
        };
        let mut held = self.replicas.iter().chain(&self.retiring);
        let place = held.find(|place| place.replica == replica);
        self.damaged.contains(&replica) || place.is_some_and(|place| removed(place.node))
    }
}

/// The refusal of a request for a topic that does not exist.
pub fn unknown_topic(name: &str) -> WireError {
    WireError::new(
        ErrorCode::UnknownTopic,
        format!("topic {name:?} does not exist; create it with `ropewalk topic create {name}`"),
    )
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::v1::MetaTopic;

    use super::*;
    use crate::meta::entity::topic::to_view;

    #[test]
    fn a_topic_is_its_id_and_an_id_of_later_is_one_to_wait_for() {
        let topic = to_view(&MetaTopic {
            name: "flights".to_owned(),
            topic_id: 7,
            ..MetaTopic::default()
        });
        let view = MetadataImage {
            topics: BTreeMap::from([("flights".to_owned(), topic)]),
            ..MetadataImage::default()
        };
        let meant = |name, id| view.meant(name, id).map(|topic| topic.id.0);
        assert_eq!((meant("flights", 0), meant("flights", 7)), (Ok(7), Ok(7)));
        let older = meant("flights", 6).unwrap_err();
        assert_eq!((older.code, older.topic_id), (ErrorCode::TopicRecreated, 7));
        let newer = meant("flights", 8).unwrap_err();
        assert_eq!((newer.code, newer.topic_id), (ErrorCode::UnknownTopic, 0));
        let none = meant("weather", 6).unwrap_err();
        assert_eq!(none.code, ErrorCode::UnknownTopic);
    }
}
