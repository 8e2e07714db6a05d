//! Internal topics that get more replicas. The controller chooses them (`meta::raise`).

use std::collections::BTreeSet;

use ropewalk_proto::command::{CommandError, RAISE_SINCE_VERSION};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, NodeId};
use ropewalk_proto::v1::{MetaTopic, RaiseReplicas};

use super::{Apply, Outcome, unknown};
use crate::meta::frozen;
use crate::meta::machine::State;
use crate::meta::placement::{Key, Ring, Slot, next_slot};

impl Apply for RaiseReplicas {
    fn since_version(&self) -> u32 {
        RAISE_SINCE_VERSION
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn apply(&self, state: &mut State) -> Result<Outcome, CommandError> {
        Ok(state.raise_replicas(self))
    }
}

impl State {
    /// Adds the missing replicas to the desired state of all partitions, or of none.
    fn raise_replicas(&mut self, command: &RaiseReplicas) -> Outcome {
        let name = &command.topic;
        let topic = self.topics.by_name.get(name).ok_or_else(|| unknown(name))?;
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
            if let Some(partition) = self.topics.partition_mut(group) {
                partition.replicas.extend(drawn);
                self.topics.groups.touch(group);
            }
        }
        if let Some(topic) = self.topics.by_name.get_mut(name) {
            topic.settings = Some(new);
            self.topics.by_name.touch(name.clone());
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
                let racks = nodes.iter().map(|node| self.nodes.rack_of(*node));
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
}

fn too_few(command: &RaiseReplicas, nodes: usize) -> WireError {
    let (topic, replicas) = (&command.topic, command.replicas);
    WireError::new(
        ErrorCode::NotEnoughNodes,
        format!(
            "topic {topic} needs {replicas} replicas, and only {nodes} nodes can hold them; add nodes"
        ),
    )
}
