//! Topics with their partitions, and the replicas of each.
//!
//! `lifecycle` creates, alters and deletes topics; `growth` adds partitions; `replicas` moves and replaces
//! replicas; `raise` adds some.

mod growth;
mod lifecycle;
mod raise;
mod replicas;

use bytes::{BufMut, Bytes};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId, TopicId};
use ropewalk_proto::v1::{MetaPartition, MetaReplica, MetaState, MetaTopic};

use super::codec::{damaged, effect, key, read, removal};
use super::rows::Rows;
use super::{Apply, Entity, Outcome};
use crate::machine::{MachineError, StateWrite};
use crate::meta::machine::State;
use crate::meta::view::{MetadataImage, PartitionImage, ReplicaPlacement, TopicImage};

/// A topic without its partitions, by id. Sorts before `PARTITION`, so it is loaded first.
const TOPIC: u8 = b't';
/// A partition, by topic id and number.
const PARTITION: u8 = b'u';

/// The topics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Topics {
    /// By name. The `partitions` of each are complete and in order. A mark means a change of the topic, not
    /// of its partitions.
    pub by_name: Rows<String, MetaTopic>,
    /// The topic and number of each group's partition. Derived from `by_name`. A mark means a change of the
    /// partition.
    pub groups: Rows<GroupId, (String, u32)>,
    /// Topics that the current entry deleted: id and number of partitions.
    deleted: Vec<(u64, u32)>,
    next_topic: u64,
    next_group: u64,
    /// Ring version of the next topic; 0 while no topic was deleted.
    next_ring_version: u32,
}

impl Topics {
    /// The numbers of a new cluster.
    pub fn number_from_one(&mut self) {
        (self.next_topic, self.next_group) = (1, 1);
    }

    /// The partition of a group.
    pub fn partition(&self, group: GroupId) -> Option<&MetaPartition> {
        let (topic, partition) = self.groups.get(&group)?;
        let topic = self.by_name.get(topic)?;
        topic.partitions.get(*partition as usize)
    }

    /// The partition of a group, mutable. The caller marks a change of it in `groups`.
    pub fn partition_mut(&mut self, group: GroupId) -> Option<&mut MetaPartition> {
        let (topic, partition) = self.groups.get(&group)?;
        let topic = self.by_name.get_mut(topic)?;
        topic.partitions.get_mut(*partition as usize)
    }

    /// Every partition.
    pub fn partitions(&self) -> impl Iterator<Item = &MetaPartition> {
        self.by_name.values().flat_map(|topic| &topic.partitions)
    }

    /// Adds new partitions of a topic to the index by group.
    fn index(&mut self, topic: &str, partitions: &[MetaPartition]) {
        for partition in partitions {
            let place = (topic.to_owned(), partition.partition);
            self.groups.put(GroupId(partition.group_id), place);
        }
    }
}

impl State {
    /// A new partition with replicas on these nodes.
    fn draw_partition(&mut self, partition: u32, nodes: &[NodeId]) -> MetaPartition {
        let group_id = self.topics.next_group;
        self.topics.next_group += 1;
        let replicas: Vec<_> = nodes.iter().map(|node| self.draw_replica(*node)).collect();
        MetaPartition {
            partition,
            group_id,
            founding: replicas.clone(),
            replicas,
            retiring: Vec::new(),
            damaged: Vec::new(),
        }
    }
}

impl Entity for Topics {
    fn prefixes(&self) -> &'static [u8] {
        &[TOPIC, PARTITION]
    }

    fn add_effects(&self, _state: &State, effects: &mut Vec<StateWrite>) {
        for (topic, partitions) in &self.deleted {
            effects.push(removal(topic_key(*topic)));
            let keys = (0..*partitions).map(|partition| partition_key(*topic, partition));
            effects.extend(keys.map(removal));
        }
        let topics = self.by_name.changes();
        let topics = topics.filter_map(|(_, topic)| topic.map(topic_effect));
        effects.extend(topics);
        for (_, place) in self.groups.changes() {
            let found = place.and_then(|(topic, partition)| {
                let topic = self.by_name.get(topic)?;
                Some((topic, topic.partitions.get(*partition as usize)?))
            });
            let effect = found.map(|(topic, partition)| {
                let key = partition_key(topic.topic_id, partition.partition);
                effect(key, Some(partition))
            });
            effects.extend(effect);
        }
    }

    fn touch_all(&mut self) {
        self.by_name.touch_all();
        self.groups.touch_all();
    }

    fn settle(&mut self) {
        self.by_name.settle();
        self.groups.settle();
        self.deleted.clear();
    }

    fn shows(&self) -> bool {
        self.by_name.is_changed() || self.groups.is_changed() || !self.deleted.is_empty()
    }

    fn add_counters(&self, whole: &mut MetaState) {
        whole.next_topic_id = self.next_topic;
        whole.next_group_id = self.next_group;
        whole.next_ring_version = self.next_ring_version;
    }

    fn add_values(&self, whole: &mut MetaState) {
        whole.topics = self.by_name.values().cloned().collect();
    }

    fn load(&self, key: &[u8], value: Bytes, whole: &mut MetaState) -> Result<(), MachineError> {
        if key.first() == Some(&TOPIC) {
            whole.topics.push(read(value)?);
            return Ok(());
        }
        let of = key.get(1..9).and_then(|id| id.try_into().ok());
        let of = of.map(u64::from_be_bytes);
        // The partitions of a topic follow one another, and topics come in the same order.
        let topics = &mut whole.topics;
        let at = of.map(|id| topics.partition_point(|topic| topic.topic_id < id));
        let topic = at.and_then(|at| topics.get_mut(at));
        let topic = topic.filter(|topic| Some(topic.topic_id) == of);
        let topic = topic.ok_or_else(|| damaged("a partition has no topic"))?;
        topic.partitions.push(read(value)?);
        Ok(())
    }

    fn restore(&mut self, whole: &mut MetaState) -> Result<(), MachineError> {
        let topics = std::mem::take(&mut whole.topics);
        for topic in &topics {
            let in_order = topic.partitions.iter().map(|p| p.partition);
            if !in_order.eq(0..topic.partitions.len() as u32) {
                return Err(damaged("a topic lacks some of its partitions"));
            }
        }
        let topics = topics.into_iter();
        self.by_name = topics.map(|topic| (topic.name.clone(), topic)).collect();
        let places = self.by_name.values().flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|one| (GroupId(one.group_id), (topic.name.clone(), one.partition)))
        });
        self.groups = places.collect();
        self.next_topic = whole.next_topic_id;
        self.next_group = whole.next_group_id;
        self.next_ring_version = whole.next_ring_version;
        Ok(())
    }

    fn show(&self, view: &mut MetadataImage) {
        let topics = self.by_name.iter();
        view.topics = topics
            .map(|(name, topic)| (name.clone(), to_view(topic)))
            .collect();
        view.next_topic = TopicId(self.next_topic);
    }
}

fn topic_effect(topic: &MetaTopic) -> StateWrite {
    let head = MetaTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        settings: topic.settings,
        ring_version: topic.ring_version,
        partitions: Vec::new(),
        ring_partitions: topic.ring_partitions,
        growths: topic.growths.clone(),
    };
    effect(topic_key(topic.topic_id), Some(&head))
}

fn topic_key(topic: u64) -> Bytes {
    key(TOPIC, |key| key.put_u64(topic))
}

fn partition_key(topic: u64, partition: u32) -> Bytes {
    key(PARTITION, |key| {
        key.put_u64(topic);
        key.put_u32(partition);
    })
}

/// A topic in the form of a view.
pub fn to_view(topic: &MetaTopic) -> TopicImage {
    TopicImage {
        name: topic.name.clone(),
        id: TopicId(topic.topic_id),
        settings: topic.settings.unwrap_or_default(),
        ring_version: topic.ring_version,
        ring_partitions: match topic.ring_partitions {
            0 => topic.partitions.len() as u32,
            some => some,
        },
        growths: topic.growths.clone(),
        partitions: topic.partitions.iter().map(partition_view).collect(),
    }
}

fn partition_view(partition: &MetaPartition) -> PartitionImage {
    PartitionImage {
        partition: partition.partition,
        group: GroupId(partition.group_id),
        replicas: places(&partition.replicas),
        retiring: places(&partition.retiring),
        damaged: partition.damaged.iter().copied().map(ReplicaId).collect(),
        founding: places(&partition.founding),
    }
}

fn places(replicas: &[MetaReplica]) -> Vec<ReplicaPlacement> {
    let place = |replica: &MetaReplica| ReplicaPlacement {
        replica: ReplicaId(replica.replica_id),
        node: NodeId(replica.node_id),
    };
    replicas.iter().map(place).collect()
}

fn unknown(name: &str) -> WireError {
    WireError::new(
        ErrorCode::UnknownTopic,
        format!("topic {name} does not exist; `ropewalk topic list` lists the topics"),
    )
}
