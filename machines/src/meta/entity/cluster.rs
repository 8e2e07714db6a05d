//! The cluster: its id, the replica ids that it has allocated, and its founding.
//!
//! Its key also holds the counters of all other entities.

use bytes::Bytes;
use prost::Message;
use ropewalk_proto::command::CommandError;
use ropewalk_proto::error::WireError;
use ropewalk_proto::ids::{NodeId, ReplicaId};
use ropewalk_proto::v1::{
    FoundCluster, FoundingNode, MetaNode, MetaReplica, MetaState, NodeInfo, NodeState,
};

use super::codec::{damaged, effect};
use super::{Apply, Entity, Outcome};
use crate::machine::{MachineError, StateWrite};
use crate::meta::frozen::MAX_NODES;
use crate::meta::invalid;
use crate::meta::machine::{State, first_replica_id};
use crate::meta::nodes::INCARNATION_BYTES;
use crate::meta::view::MetadataImage;

/// The cluster id and the counters of all entities.
const COUNTERS: u8 = b'c';

/// The cluster as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cluster {
    /// Empty until the cluster is founded.
    pub id: String,
    /// Every lower replica id is allocated, and no other one.
    next_replica: u64,
    /// The current entry changed a counter of an entity.
    changed: bool,
}

impl Cluster {
    /// Marks the counters of all entities as changed.
    pub fn touch(&mut self) {
        self.changed = true;
    }
}

impl Entity for Cluster {
    fn prefixes(&self) -> &'static [u8] {
        &[COUNTERS]
    }

    fn add_effects(&self, state: &State, effects: &mut Vec<StateWrite>) {
        if self.changed {
            let key = Bytes::from_static(&[COUNTERS]);
            effects.push(effect(key, Some(&state.counters())));
        }
    }

    fn touch_all(&mut self) {
        self.touch();
    }

    fn settle(&mut self) {
        self.changed = false;
    }

    fn add_counters(&self, whole: &mut MetaState) {
        whole.cluster_id.clone_from(&self.id);
        whole.next_replica_id = self.next_replica;
    }

    fn add_values(&self, _whole: &mut MetaState) {}

    fn load(&self, _key: &[u8], value: Bytes, whole: &mut MetaState) -> Result<(), MachineError> {
        let merged = whole.merge(value);
        merged.map_err(|error| damaged(&error.to_string()))
    }

    fn restore(&mut self, whole: &mut MetaState) -> Result<(), MachineError> {
        self.id = std::mem::take(&mut whole.cluster_id);
        self.next_replica = whole.next_replica_id;
        Ok(())
    }

    fn show(&self, view: &mut MetadataImage) {
        view.cluster_id.clone_from(&self.id);
        view.next_replica = ReplicaId(self.next_replica);
    }
}

impl Apply for FoundCluster {
    fn since_version(&self) -> u32 {
        1
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn apply(&self, state: &mut State) -> Result<Outcome, CommandError> {
        Ok(state.found_cluster(self))
    }
}

impl State {
    /// The counters of all entities as one message.
    pub fn counters(&self) -> MetaState {
        let mut counters = MetaState::default();
        for entity in self.entities() {
            entity.add_counters(&mut counters);
        }
        counters
    }

    /// A new replica id. No replica had it before.
    pub fn draw_replica(&mut self, node: NodeId) -> MetaReplica {
        let replica_id = self.cluster.next_replica;
        self.cluster.next_replica += 1;
        self.cluster.touch();
        MetaReplica {
            replica_id,
            node_id: node.0,
        }
    }

    /// Founds the cluster. It is the first command of a cluster. The same plan again changes nothing, since
    /// every founding node proposes it until it is applied.
    fn found_cluster(&mut self, command: &FoundCluster) -> Outcome {
        let known = &self.cluster.id;
        if *known == command.cluster_id && !command.cluster_id.is_empty() {
            return Ok(None);
        }
        if !known.is_empty() {
            return Err(invalid(format!("cluster is already founded, as {known}")));
        }
        check_founders(command)?;
        let first = first_replica_id(&command.cluster_id).0;
        let mut last = 0;
        for founder in &command.nodes {
            let replica = first + founder.node_id;
            let node = founding_node(founder, replica);
            self.nodes.by_id.put(NodeId(founder.node_id), node);
            last = last.max(founder.node_id);
        }
        self.cluster.id.clone_from(&command.cluster_id);
        self.cluster.next_replica = first + last + 1;
        self.nodes.next_id = last + 1;
        self.topics.number_from_one();
        self.producers.next_id = 1;
        self.cluster.touch();
        Ok(None)
    }
}

fn check_founders(command: &FoundCluster) -> Result<(), WireError> {
    let well_formed = |node: &FoundingNode| {
        (1..=MAX_NODES as u64).contains(&node.node_id)
            && !node.address.is_empty()
            && node.incarnation.len() == INCARNATION_BYTES
    };
    let mut ids: Vec<u64> = command.nodes.iter().map(|node| node.node_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let whole = command.nodes.iter().all(well_formed) && ids.len() == command.nodes.len();
    if command.cluster_id.is_empty() || ids.is_empty() || !whole {
        return Err(invalid(
            "founding plan is invalid: it needs a cluster id, and nodes that each have an id, an address and an incarnation",
        ));
    }
    Ok(())
}

fn founding_node(founder: &FoundingNode, meta_replica_id: u64) -> MetaNode {
    MetaNode {
        info: Some(NodeInfo {
            node_id: founder.node_id,
            address: founder.address.clone(),
            state: NodeState::Active.into(),
            ..NodeInfo::default()
        }),
        incarnation: founder.incarnation.clone(),
        meta_replica_id,
        command_version: 0,
        start: None,
    }
}
