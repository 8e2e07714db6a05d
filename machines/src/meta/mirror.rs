//! The metadata's format on the disk. Each thing that can change by itself has a small keyed value; a
//! checkpoint is one message with the whole state.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use ropewalk_proto::ids::{GroupId, NodeId};
use ropewalk_proto::v1::{MetaNode, MetaPartition, MetaProducer, MetaState, MetaTopic};

use super::machine::{Counters, State};
use super::producers::{Epochs, Forgotten};
use crate::machine::{Effect, MachineError};

/// Cluster id and counters.
const COUNTERS: u8 = b'c';
/// The log index of the newest checkpoint.
const CHECKPOINTED: u8 = b'k';
/// A node, by id.
const NODE: u8 = b'n';
/// A producer that renewed its epoch, by id.
const PRODUCER: u8 = b'p';
/// A topic without its partitions, by id. Sorts before `PARTITION`, so it is loaded first.
const TOPIC: u8 = b't';
/// A partition, by topic id and number.
const PARTITION: u8 = b'u';

/// The changes by one entry.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub counters: bool,
    pub checkpointed: bool,
    pub nodes: BTreeSet<NodeId>,
    /// Producers whose epochs were changed or forgotten.
    pub producers: BTreeSet<u64>,
    /// Topics, without their partitions, by name.
    pub topics: BTreeSet<String>,
    pub groups: BTreeSet<GroupId>,
    /// Deleted topics: id and number of partitions.
    pub deleted: Vec<(u64, u32)>,
}

impl Touched {
    /// True if the entry changed the content of a view.
    pub fn shows(&self) -> bool {
        !(self.nodes.is_empty()
            && self.topics.is_empty()
            && self.groups.is_empty()
            && self.deleted.is_empty())
    }

    /// The changes as effects for the disk.
    pub fn effects(&self, state: &State, checkpointed: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.counters {
            effects.push(put(&[COUNTERS], &counters_message(state)));
        }
        if self.checkpointed {
            effects.push(checkpointed_effect(checkpointed));
        }
        for (topic, partitions) in &self.deleted {
            effects.push(remove(topic_key(*topic)));
            let keys = (0..*partitions).map(|partition| partition_key(*topic, partition));
            effects.extend(keys.map(remove));
        }
        for id in &self.nodes {
            effects.extend(state.nodes.get(id).map(|node| put(&node_key(*id), node)));
        }
        for id in &self.producers {
            let key = producer_key(*id);
            effects.push(match state.epochs.get(*id) {
                Some(producer) => put(&key, producer),
                None => remove(key),
            });
        }
        for name in &self.topics {
            effects.extend(state.topics.get(name).map(topic_effect));
        }
        for group in &self.groups {
            let topic = state.groups.get(group);
            let topic = topic.and_then(|(name, _)| state.topics.get(name));
            let partition = state.partition(*group);
            if let (Some(topic), Some(partition)) = (topic, partition) {
                effects.push(partition_effect(topic.topic_id, partition));
            }
        }
        effects
    }
}

/// The whole state as effects.
pub(super) fn everything(state: &State, checkpointed: u64) -> Vec<Effect> {
    let touched = Touched {
        counters: true,
        checkpointed: true,
        nodes: state.nodes.keys().copied().collect(),
        producers: state.epochs.iter().map(|one| one.producer_id).collect(),
        topics: state.topics.keys().cloned().collect(),
        groups: state.groups.keys().copied().collect(),
        deleted: Vec::new(),
    };
    touched.effects(state, checkpointed)
}

/// Rebuilds the state, and the log index of the newest checkpoint, from stored values.
pub(super) fn load(effects: Vec<(Bytes, Bytes)>) -> Result<(State, u64), MachineError> {
    let mut whole = MetaState::default();
    let mut topics: BTreeMap<u64, MetaTopic> = BTreeMap::new();
    let mut checkpointed = 0;
    for (key, value) in effects {
        match key.first() {
            Some(&COUNTERS) => {
                let counters: MetaState = read(value)?;
                whole = MetaState {
                    nodes: whole.nodes,
                    producers: whole.producers,
                    ..counters
                };
            }
            Some(&CHECKPOINTED) => {
                let bytes = value[..].try_into();
                checkpointed = u64::from_be_bytes(bytes.map_err(|_| damaged("checkpoint mark"))?);
            }
            Some(&NODE) => whole.nodes.push(read::<MetaNode>(value)?),
            Some(&PRODUCER) => whole.producers.push(read::<MetaProducer>(value)?),
            Some(&TOPIC) => {
                let topic: MetaTopic = read(value)?;
                topics.insert(topic.topic_id, topic);
            }
            Some(&PARTITION) => {
                let of = key.get(1..9).and_then(|id| id.try_into().ok());
                let topic = of.and_then(|id| topics.get_mut(&u64::from_be_bytes(id)));
                let topic = topic.ok_or_else(|| damaged("a partition has no topic"))?;
                topic.partitions.push(read::<MetaPartition>(value)?);
            }
            _ => return Err(damaged("a key has an unknown kind")),
        }
    }
    whole.topics = topics.into_values().collect();
    Ok((from_message(whole)?, checkpointed))
}

/// The whole state as one message.
pub(super) fn checkpoint(state: &State, applied: u64) -> Bytes {
    let message = MetaState {
        nodes: state.nodes.values().cloned().collect(),
        topics: state.topics.values().cloned().collect(),
        producers: state.epochs.iter().copied().collect(),
        applied_index: applied,
        ..counters_message(state)
    };
    message.encode_to_vec().into()
}

/// The state in a checkpoint, and its log index.
pub(super) fn restore(checkpoint: Bytes) -> Result<(State, u64), MachineError> {
    let message: MetaState = read(checkpoint)?;
    let applied = message.applied_index;
    Ok((from_message(message)?, applied))
}

fn from_message(message: MetaState) -> Result<State, MachineError> {
    for topic in &message.topics {
        let in_order = topic.partitions.iter().map(|p| p.partition);
        if !in_order.eq(0..topic.partitions.len() as u32) {
            return Err(damaged("a topic lacks some of its partitions"));
        }
    }
    let nodes = message.nodes.into_iter().map(|node| {
        let id = node.info.as_ref().map_or(0, |info| info.node_id);
        (NodeId(id), node)
    });
    let topics = message.topics.into_iter();
    let mut state = State {
        cluster_id: message.cluster_id,
        nodes: nodes.collect(),
        topics: topics.map(|topic| (topic.name.clone(), topic)).collect(),
        next: Counters {
            node: message.next_node_id,
            topic: message.next_topic_id,
            group: message.next_group_id,
            replica: message.next_replica_id,
            producer: message.next_producer_id,
            ring_version: message.next_ring_version,
        },
        epochs: Epochs::default(),
        groups: Default::default(),
    };
    state.epochs.forgotten = Forgotten {
        below_id: message.forgotten_producers_below,
        epoch: message.forgotten_producer_epoch,
    };
    for producer in message.producers {
        state.epochs.load(producer);
    }
    state.index_groups();
    Ok(state)
}

fn counters_message(state: &State) -> MetaState {
    MetaState {
        cluster_id: state.cluster_id.clone(),
        next_node_id: state.next.node,
        next_topic_id: state.next.topic,
        next_group_id: state.next.group,
        next_replica_id: state.next.replica,
        next_producer_id: state.next.producer,
        next_ring_version: state.next.ring_version,
        forgotten_producers_below: state.epochs.forgotten.below_id,
        forgotten_producer_epoch: state.epochs.forgotten.epoch,
        ..MetaState::default()
    }
}

fn topic_effect(topic: &MetaTopic) -> Effect {
    let head = MetaTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        settings: topic.settings,
        ring_version: topic.ring_version,
        partitions: Vec::new(),
        ring_partitions: topic.ring_partitions,
        growths: topic.growths.clone(),
    };
    put(&topic_key(topic.topic_id), &head)
}

fn partition_effect(topic: u64, partition: &MetaPartition) -> Effect {
    put(&partition_key(topic, partition.partition), partition)
}

fn checkpointed_effect(index: u64) -> Effect {
    Effect {
        key: Bytes::from_static(&[CHECKPOINTED]),
        value: Some(Bytes::copy_from_slice(&index.to_be_bytes())),
    }
}

fn node_key(node: NodeId) -> Bytes {
    key(NODE, |key| key.put_u64(node.0))
}

fn producer_key(producer: u64) -> Bytes {
    key(PRODUCER, |key| key.put_u64(producer))
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

fn key(kind: u8, rest: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut key = BytesMut::with_capacity(13);
    key.put_u8(kind);
    rest(&mut key);
    key.freeze()
}

fn put(key: &[u8], value: &impl Message) -> Effect {
    Effect {
        key: Bytes::copy_from_slice(key),
        value: Some(value.encode_to_vec().into()),
    }
}

fn remove(key: Bytes) -> Effect {
    Effect { key, value: None }
}

fn read<M: Message + Default>(bytes: Bytes) -> Result<M, MachineError> {
    M::decode(bytes).map_err(|error| damaged(&error.to_string()))
}

fn damaged(what: &str) -> MachineError {
    MachineError::Damaged(format!("cluster metadata is damaged: {what}"))
}
