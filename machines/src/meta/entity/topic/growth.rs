//! Growth of a topic.
//!
//! The metadata group creates the new partitions at once, and keys keep mapping to the old ones. The leader
//! of each old partition writes a routing barrier into its log (`node/src/partition/expansion.rs`) and reports the
//! barrier's offset here. **Keys map to the new partitions only when every old partition has its barrier.**
//! So every record routed by the old mapping comes before the barriers. Every record routed by the new mapping
//! is published after them.

use ropewalk_proto::command::{CommandError, GROUPS_SINCE_VERSION, SETTINGS_SINCE_VERSION};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::GroupId;
use ropewalk_proto::v1::{
    Fence, GrowTopic, MetaTopic, PartitionFenced, Partitioner, TopicGrowth, meta_reply,
};

use super::lifecycle::topic_info;
use super::{Apply, Outcome, unknown};
use crate::meta::frozen::{MAX_GROWTHS, MAX_PARTITIONS};
use crate::meta::machine::State;
use crate::meta::{invalid, placement};

impl Apply for GrowTopic {
    fn since_version(&self) -> u32 {
        match self.max_replicas_per_node {
            0 => GROUPS_SINCE_VERSION,
            _ => SETTINGS_SINCE_VERSION,
        }
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn apply(&self, state: &mut State) -> Result<Outcome, CommandError> {
        Ok(state.grow_topic(self))
    }
}

impl Apply for PartitionFenced {
    fn since_version(&self) -> u32 {
        GROUPS_SINCE_VERSION
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn apply(&self, state: &mut State) -> Result<Outcome, CommandError> {
        Ok(state.partition_fenced(self))
    }
}

impl State {
    fn grow_topic(&mut self, command: &GrowTopic) -> Outcome {
        let (name, to) = (&command.name, command.partitions);
        let topic = self.topics.by_name.get(name).ok_or_else(|| unknown(name))?;
        let from = topic.partitions.len() as u32;
        if to == from {
            return Ok(Some(meta_reply::Kind::Topic(topic_info(topic))));
        }
        check_count(topic, to)?;
        check_done(topic)?;
        let replicas = topic.settings.map_or(1, |settings| settings.replicas);
        let (topic_id, ring_version) = (topic.topic_id, topic.ring_version + 1);
        let slots = self.slots();
        let most = command.max_replicas_per_node;
        self.check_room(name, to - from, replicas, slots.len(), most)?;
        let places = placement::place(topic_id, to, replicas, &slots);
        let mut partitions = Vec::new();
        for (partition, nodes) in (0..).zip(places).skip(from as usize) {
            partitions.push(self.draw_partition(partition, &nodes));
        }
        self.topics.index(name, &partitions);
        self.topics.by_name.touch(name.clone());
        let topic = self
            .topics
            .by_name
            .get_mut(name)
            .ok_or_else(|| unknown(name))?;
        topic.partitions.extend(partitions);
        topic.ring_partitions = from;
        topic.growths.push(TopicGrowth {
            ring_version,
            from_partitions: from,
            to_partitions: to,
            fences: Vec::new(),
        });
        Ok(Some(meta_reply::Kind::Topic(topic_info(topic))))
    }

    /// Records a routing barrier. After the last one, keys map to the new partitions.
    fn partition_fenced(&mut self, fact: &PartitionFenced) -> Outcome {
        let place = self.topics.groups.get(&GroupId(fact.group_id)).cloned();
        let Some((name, partition)) = place else {
            return Ok(None);
        };
        let topic = self
            .topics
            .by_name
            .get_mut(&name)
            .ok_or_else(|| unknown(&name))?;
        let Some(growth) = topic.growths.last_mut() else {
            return Ok(None);
        };
        let known = growth
            .fences
            .iter()
            .any(|fence| fence.partition == partition);
        if growth.ring_version != fact.ring_version || known || partition >= growth.from_partitions
        {
            return Ok(None);
        }
        growth.fences.push(Fence {
            partition,
            offset: fact.offset,
        });
        if growth.fences.len() == growth.from_partitions as usize {
            growth.fences.sort_by_key(|fence| fence.partition);
            topic.ring_version = growth.ring_version;
            topic.ring_partitions = growth.to_partitions;
        }
        self.topics.by_name.touch(name);
        Ok(None)
    }
}

fn check_count(topic: &MetaTopic, to: u32) -> Result<(), WireError> {
    let (name, from) = (&topic.name, topic.partitions.len() as u32);
    if to < from {
        return Err(invalid(format!(
            "topic {name} has {from} partitions, and the number cannot be lowered: records of the \
             removed partitions could not keep the order of their keys; create a topic of {to} \
             partitions and copy the records that are still needed"
        )));
    }
    if to > MAX_PARTITIONS {
        return Err(invalid(format!(
            "topic {name} cannot have {to} partitions; choose {MAX_PARTITIONS} at most"
        )));
    }
    let murmur2 = topic
        .settings
        .is_some_and(|settings| settings.partitioner() == Partitioner::Murmur2);
    if murmur2 && !to.is_multiple_of(from) {
        return Err(invalid(format!(
            "topic {name} uses the murmur2 partitioner, which would move keys between its {from} \
             existing partitions and break their order; grow it to a multiple of {from}"
        )));
    }
    if topic.growths.len() >= MAX_GROWTHS {
        return Err(invalid(format!(
            "topic {name} has grown {MAX_GROWTHS} times, the limit; create a new topic and copy \
             the records"
        )));
    }
    Ok(())
}

/// Refuses a change that must wait until a topic has grown.
pub(super) fn check_done(topic: &MetaTopic) -> Result<(), WireError> {
    match topic.growths.last() {
        Some(growth) if growth.ring_version > topic.ring_version => Err(WireError::new(
            ErrorCode::Unsafe,
            format!(
                "topic {} is growing to {} partitions, and {} of {} old ones are fenced; try \
                 again when the growth is complete",
                topic.name,
                growth.to_partitions,
                growth.fences.len(),
                growth.from_partitions
            ),
        )),
        _ => Ok(()),
    }
}
