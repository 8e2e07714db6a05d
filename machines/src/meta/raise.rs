//! Internal topics get more replicas as nodes join.
//!
//! Committed offsets of groups are acknowledged, so they must survive the loss of a node. But the internal
//! topic is created for the first group, possibly while there is only one node. Therefore the controller
//! requests more replicas of it as soon as there are nodes for them, and the partitions' leaders add them as
//! in any move. The owners of other topics set their number of replicas; it never changes here.

use ropewalk_proto::command::RAISE_SINCE_VERSION;
use ropewalk_proto::ids::{NodeId, is_internal};
use ropewalk_proto::v1::{NodeState, RaiseReplicas};

use super::view::{MetadataImage, TopicImage};

/// Number of replicas of each partition of an internal topic, if there are enough nodes.
pub const INTERNAL_REPLICAS: usize = 3;

/// The increases that internal topics need, with the nodes that are available now. Silent nodes get no
/// replica: it would only raise the size of a majority.
pub fn due(view: &MetadataImage, alive: impl Fn(NodeId) -> bool) -> Vec<RaiseReplicas> {
    if view.understood < RAISE_SINCE_VERSION {
        return Vec::new();
    }
    let able = view.nodes.values();
    let able = able.filter(|node| node.state == NodeState::Active && alive(node.id));
    let node_ids: Vec<u64> = able.map(|node| node.id.0).collect();
    let replicas = node_ids.len().min(INTERNAL_REPLICAS) as u32;
    let topics = view.topics.values();
    let short = topics.filter(|topic| {
        is_internal(&topic.name) && topic.settings.replicas < replicas && is_settled(topic)
    });
    let raise = short.map(|topic| RaiseReplicas {
        topic: topic.name.clone(),
        replicas,
        node_ids: node_ids.clone(),
    });
    raise.collect()
}

/// True if no replica is retiring. Otherwise a node could hold a retiring and a new replica of one partition:
/// two voters that would be lost together.
fn is_settled(topic: &TopicImage) -> bool {
    topic.partitions.iter().all(|one| one.retiring.is_empty())
}
