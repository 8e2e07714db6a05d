//! Topics that are created, altered and deleted.

use ropewalk_proto::command::{
    COMPACTION_SINCE_VERSION, CommandError, GROUPS_SINCE_VERSION, RINGS_SINCE_VERSION,
    SETTINGS_SINCE_VERSION, TIMESTAMPS_SINCE_VERSION,
};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GROUPS_TOPIC, GroupId};
use ropewalk_proto::v1::{
    AlterTopic, CreateTopic, DeleteTopic, MetaTopic, PartitionInfo, TopicInfo, TopicSettings,
    meta_reply,
};

use super::super::newer;
use super::{Apply, Outcome, growth, unknown};
use crate::meta::frozen::{self, MAX_NAME_BYTES, MAX_PARTITIONS, MAX_REPLICAS_PER_NODE};
use crate::meta::machine::{MetaMachine, State};
use crate::meta::placement::{self, Slot};
use crate::meta::{invalid, settings};

/// The version of a topic's first ring while no topic was deleted.
const FIRST_RING: u32 = 1;

impl Apply for CreateTopic {
    fn since_version(&self) -> u32 {
        if self.max_replicas_per_node > 0 {
            SETTINGS_SINCE_VERSION
        } else if self.name == GROUPS_TOPIC {
            // Older builds do not understand the contents of this topic.
            GROUPS_SINCE_VERSION
        } else {
            version_of(self.settings.as_ref())
        }
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn apply(&self, state: &mut State) -> Result<Outcome, CommandError> {
        Ok(state.create_topic(self))
    }
}

impl Apply for AlterTopic {
    fn since_version(&self) -> u32 {
        match self.changed.as_slice() {
            [] => version_of(self.settings.as_ref()),
            _ => SETTINGS_SINCE_VERSION,
        }
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn apply(&self, state: &mut State) -> Result<Outcome, CommandError> {
        state.alter_topic(self)
    }
}

impl Apply for DeleteTopic {
    fn since_version(&self) -> u32 {
        match self.keep_ring_version {
            true => RINGS_SINCE_VERSION,
            false => 1,
        }
    }

    fn is_repeatable(&self) -> bool {
        // By then another topic may have the name.
        false
    }

    fn apply(&self, state: &mut State) -> Result<Outcome, CommandError> {
        Ok(state.delete_topic(self))
    }
}

/// The lowest command version of a node that keeps all these settings.
fn version_of(settings: Option<&TopicSettings>) -> u32 {
    match settings {
        Some(given) if settings::bounds_timestamps(given) => TIMESTAMPS_SINCE_VERSION,
        Some(given) if settings::needs_compaction(given) => COMPACTION_SINCE_VERSION,
        _ => 1,
    }
}

impl MetaMachine {
    /// The description of one topic for its creator.
    pub fn topic(&self, name: &str) -> Option<TopicInfo> {
        self.state.topics.by_name.get(name).map(topic_info)
    }
}

impl State {
    fn create_topic(&mut self, command: &CreateTopic) -> Outcome {
        let name = &command.name;
        check_name(name)?;
        if self.topics.by_name.contains_key(name) {
            return Err(WireError::new(
                ErrorCode::TopicExists,
                format!("topic {name} already exists"),
            ));
        }
        if !(1..=MAX_PARTITIONS).contains(&command.partitions) {
            let partitions = command.partitions;
            return Err(invalid(format!(
                "topic {name} cannot have {partitions} partitions; choose 1 to {MAX_PARTITIONS}"
            )));
        }
        let settings = frozen::resolve(command.settings.as_ref())?;
        let slots = self.slots();
        let most = command.max_replicas_per_node;
        self.check_room(
            name,
            command.partitions,
            settings.replicas,
            slots.len(),
            most,
        )?;

        let topic_id = self.topics.next_topic;
        let places = placement::place(topic_id, command.partitions, settings.replicas, &slots);
        let mut partitions = Vec::with_capacity(places.len());
        for (partition, nodes) in (0..).zip(places) {
            partitions.push(self.draw_partition(partition, &nodes));
        }
        self.topics.next_topic += 1;
        self.cluster.touch();
        let topic = MetaTopic {
            name: name.clone(),
            topic_id,
            settings: Some(settings),
            // Requests routed for an earlier topic of this name must not pass as routed for this one.
            ring_version: self.topics.next_ring_version.max(FIRST_RING),
            partitions,
            ring_partitions: 0,
            growths: Vec::new(),
        };
        self.topics.index(name, &topic.partitions);
        let info = topic_info(&topic);
        self.topics.by_name.put(name.clone(), topic);
        Ok(Some(meta_reply::Kind::Topic(info)))
    }

    /// The nodes that can take replicas, with their present load.
    pub(super) fn slots(&self) -> Vec<Slot> {
        let mut slots: Vec<Slot> = self
            .nodes
            .placeable()
            .map(|(id, node)| {
                let rack = node.info.as_ref().map_or("", |info| &info.rack);
                Slot::new(id, rack)
            })
            .collect();
        for partition in self.topics.partitions() {
            for (position, replica) in partition.replicas.iter().enumerate() {
                let slot = slots.iter_mut().find(|slot| slot.node.0 == replica.node_id);
                if let Some(slot) = slot {
                    slot.replicas += 1;
                    slot.leaders += usize::from(position == 0);
                }
            }
        }
        slots
    }

    pub(super) fn check_room(
        &self,
        name: &str,
        partitions: u32,
        replicas: u32,
        nodes: usize,
        most: u32,
    ) -> Result<(), WireError> {
        if replicas as usize > nodes {
            let can = match nodes {
                1 => "only 1 node can hold them".to_owned(),
                _ => format!("only {nodes} nodes can hold them"),
            };
            return Err(WireError::new(
                ErrorCode::NotEnoughNodes,
                format!(
                    "topic {name} needs {replicas} nodes for its replicas, and {can}; start more \
                     nodes or ask for fewer replicas"
                ),
            ));
        }
        let held: usize = self.topics.partitions().map(|p| p.replicas.len()).sum();
        let (held, more) = (held as u64, u64::from(partitions) * u64::from(replicas));
        let most = match most {
            0 => MAX_REPLICAS_PER_NODE,
            most => MAX_REPLICAS_PER_NODE.min(most.into()),
        };
        let room = most * nodes as u64;
        if held + more > room {
            let free = room.saturating_sub(held) / u64::from(replicas.max(1));
            return Err(WireError::new(
                ErrorCode::Overloaded,
                format!(
                    "topic {name} does not fit: it needs {partitions} partitions x {replicas} \
                     replicas = {more}, and the cluster already has {held}; {nodes} nodes x \
                     {most} replicas = {room}, so {free} partitions would fit; start more nodes, \
                     ask for fewer, or raise replicas_per_node in the nodes' limits"
                ),
            ));
        }
        Ok(())
    }

    /// Changes the settings that a command names. The others keep their current values, even if the proposer
    /// knew other ones. A command that names none replaces all of them.
    fn alter_topic(&mut self, command: &AlterTopic) -> Result<Outcome, CommandError> {
        let Some(topic) = self.topics.by_name.get_mut(&command.name) else {
            return Ok(Err(unknown(&command.name)));
        };
        let values = command.settings.unwrap_or_default();
        let mut new = match command.changed.as_slice() {
            [] => values,
            _ => topic.settings.unwrap_or_default(),
        };
        for field in &command.changed {
            if !frozen::overlay(&mut new, &values, *field) {
                return Err(newer());
            }
        }
        let replaced = replace_settings(topic, new);
        if replaced.is_ok() {
            self.topics.by_name.touch(command.name.clone());
        }
        Ok(replaced)
    }

    fn delete_topic(&mut self, command: &DeleteTopic) -> Outcome {
        let removed = self.topics.by_name.remove(&command.name);
        let topic = removed.ok_or_else(|| unknown(&command.name))?;
        for partition in &topic.partitions {
            self.topics.groups.remove(&GroupId(partition.group_id));
        }
        if command.keep_ring_version {
            // A growth in progress may already have barriers with its ring version in the old partitions.
            let growth = topic.growths.last().map_or(0, |growth| growth.ring_version);
            let above = topic.ring_version.max(growth).saturating_add(1);
            self.topics.next_ring_version = self.topics.next_ring_version.max(above);
            self.cluster.touch();
        }
        let partitions = topic.partitions.len() as u32;
        self.topics.deleted.push((topic.topic_id, partitions));
        Ok(None)
    }
}

fn replace_settings(topic: &mut MetaTopic, mut new: TopicSettings) -> Outcome {
    let old = frozen::resolve(topic.settings.as_ref())?;
    if new.replicas == 0 {
        new.replicas = old.replicas;
    }
    let new = frozen::resolve(Some(&new))?;
    if new.replicas != old.replicas {
        return Err(invalid(format!(
            "topic {} has {} replicas of each partition; their number is fixed when a topic is \
             created and cannot be changed yet",
            topic.name, old.replicas
        )));
    }
    if new.partitioner != old.partitioner {
        growth::check_done(topic)?;
        topic.ring_version += 1;
    }
    topic.settings = Some(new);
    Ok(Some(meta_reply::Kind::Topic(topic_info(topic))))
}

fn check_name(name: &str) -> Result<(), WireError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len());
    if fits && name.bytes().all(allowed) && name != "." && name != ".." {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    Err(WireError::new(
        ErrorCode::InvalidTopicName,
        format!(
            "invalid topic name {shown:?}: use 1-{MAX_NAME_BYTES} characters of a-z A-Z 0-9 . _ \
             -, and neither \".\" nor \"..\""
        ),
    ))
}

pub(super) fn topic_info(topic: &MetaTopic) -> TopicInfo {
    let partitions = topic.partitions.iter().map(|partition| PartitionInfo {
        partition: partition.partition,
        replica_node_ids: partition.replicas.iter().map(|r| r.node_id).collect(),
        ..PartitionInfo::default()
    });
    TopicInfo {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: partitions.collect(),
        settings: topic.settings,
        ring_version: topic.ring_version,
        ring_partitions: topic.ring_partitions,
        growths: topic.growths.clone(),
    }
}
