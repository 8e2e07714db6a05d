//! Internal topics get more replicas as nodes join.
//!
//! Committed offsets of groups are acknowledged, so they must survive the loss of a node. But the internal
//! topic is created for the first group, possibly while there is only one node. Therefore the controller
//! requests more replicas of it as soon as there are nodes for them, and the partitions' leaders add them as
//! in any move. The owners of other topics set their number of replicas; it never changes here.

use std::collections::BTreeSet;

use ropewalk_proto::command::RAISE_SINCE_VERSION;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, NodeId, is_internal};
use ropewalk_proto::v1::{MetaTopic, NodeState, RaiseReplicas};

use super::frozen;
use super::machine::{MetaMachine, Outcome};
use super::placement::{Key, Ring, Slot, next_slot};
use super::topics::unknown;
use super::view::{ClusterView, TopicView};

/// Number of replicas of each partition of an internal topic, if there are enough nodes.
pub const INTERNAL_REPLICAS: usize = 3;

/// The increases that internal topics need, with the nodes that are available now. Silent nodes get no
/// replica: it would only raise the size of a majority.
pub fn due(view: &ClusterView, alive: impl Fn(NodeId) -> bool) -> Vec<RaiseReplicas> {
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
fn is_settled(topic: &TopicView) -> bool {
    topic.partitions.iter().all(|one| one.retiring.is_empty())
}

impl MetaMachine {
    /// Adds the missing replicas to the desired state of all partitions, or of none.
    pub(super) fn raise_replicas(&mut self, command: &RaiseReplicas) -> Outcome {
        let name = &command.topic;
        let topic = self.state.topics.get(name).ok_or_else(|| unknown(name))?;
        let mut new = frozen::resolve(topic.settings.as_ref())?;
        if command.replicas <= new.replicas {
            return Ok(None);
        }
        let slots = self.slots();
        let (partitions, more) = (
            topic.partitions.len() as u32,
            command.replicas - new.replicas,
        );
        self.check_room(name, partitions, more, slots.len(), 0)?;
        let added = self.additions(topic, command, slots)?;
        new.replicas = command.replicas;
        let new = frozen::resolve(Some(&new))?;
        for (group, nodes) in added {
            let drawn: Vec<_> = nodes.iter().map(|node| self.draw_replica(*node)).collect();
            if let Some(partition) = self.state.partition_mut(group) {
                partition.replicas.extend(drawn);
                self.touched.groups.insert(group);
            }
        }
        if let Some(topic) = self.state.topics.get_mut(name) {
            topic.settings = Some(new);
            self.touched.topics.insert(name.clone());
        }
        Ok(None)
    }

    /// The additional nodes for each partition of a topic.
    fn additions(
        &self,
        topic: &MetaTopic,
        command: &RaiseReplicas,
        mut slots: Vec<Slot>,
    ) -> Result<Vec<(GroupId, Vec<NodeId>)>, WireError> {
        slots.retain(|slot| command.node_ids.contains(&slot.node.0));
        let ring = Ring::new(slots.iter().map(|slot| slot.node));
        let mut added = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let turns = ring.turns(Key {
                topic: topic.topic_id,
                partition: partition.partition,
            });
            let held = partition.replicas.iter();
            let mut nodes: Vec<NodeId> = held.map(|held| NodeId(held.node_id)).collect();
            let had = nodes.len();
            while nodes.len() < command.replicas as usize {
                let racks = nodes.iter().map(|node| self.rack_of(*node));
                let racks: BTreeSet<&str> = racks.collect();
                let slot = next_slot(&mut slots, &nodes, &racks, &turns)
                    .ok_or_else(|| too_few(command, nodes.len()))?;
                slot.replicas += 1;
                nodes.push(slot.node);
            }
            added.push((GroupId(partition.group_id), nodes.split_off(had)));
        }
        Ok(added)
    }

    fn rack_of(&self, node: NodeId) -> &str {
        let info = self.state.nodes.get(&node).and_then(|n| n.info.as_ref());
        info.map_or("", |info| &info.rack)
    }
}

fn too_few(command: &RaiseReplicas, nodes: usize) -> WireError {
    let (topic, replicas) = (&command.topic, command.replicas);
    WireError::new(
        ErrorCode::NotEnoughNodes,
        format!(
            "topic {topic} needs {replicas} replicas, and only {nodes} nodes can hold them; add \
             nodes"
        ),
    )
}
