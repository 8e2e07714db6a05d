//! Nodes: registration, the state that an operator wants for each, and the replacement of lost ones. The leader
//! has checked a registration before it proposed it (`admission`).

use bytes::{BufMut, Bytes};
use ropewalk_proto::command::{CommandError, EXTERNAL_SINCE_VERSION, IDENTITY_SINCE_VERSION};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use ropewalk_proto::v1::{
    MetaNode, MetaState, NodeRegistered, NodeState, RegisterNode, SetNodeState, meta_reply,
};

use super::codec::{effect, key, read};
use super::rows::Rows;
use super::{Apply, Entity, Outcome};
use crate::machine::{MachineError, StateWrite};
use crate::meta::frozen::MAX_NODES;
use crate::meta::machine::{State, address_of, state_of};
use crate::meta::nodes::{
    INCARNATION_BYTES, address_in_use, info_of, refreshed, removed, started_twice,
};
use crate::meta::view::{MetadataImage, NodeImage};
use crate::meta::{invalid, starts};

/// A node, by id.
const NODE: u8 = b'n';

/// The nodes, including the removed ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Nodes {
    /// The nodes themselves.
    pub by_id: Rows<NodeId, MetaNode>,
    /// Every lower id is allocated, and no other one.
    pub next_id: u64,
}

impl Nodes {
    /// Of the nodes that are not removed, the one with the lowest command version, and that version.
    pub fn oldest_understood(&self) -> Option<(NodeId, u32)> {
        let nodes = self.by_id.iter();
        let nodes = nodes.filter(|(_, node)| state_of(node) != NodeState::Removed);
        let versions = nodes.map(|(id, node)| (node.command_version, *id));
        versions.min().map(|(version, id)| (id, version))
    }

    /// The nodes that can get new replicas.
    pub fn placeable(&self) -> impl Iterator<Item = (NodeId, &MetaNode)> {
        let nodes = self.by_id.iter().map(|(id, node)| (*id, node));
        nodes.filter(|(_, node)| state_of(node) == NodeState::Active)
    }

    /// The rack of a node; empty for an unknown one.
    pub fn rack_of(&self, id: NodeId) -> &str {
        let info = self.by_id.get(&id).and_then(|node| node.info.as_ref());
        info.map_or("", |info| &info.rack)
    }
}

impl Entity for Nodes {
    fn prefixes(&self) -> &'static [u8] {
        &[NODE]
    }

    fn add_effects(&self, _state: &State, effects: &mut Vec<StateWrite>) {
        let changes = self.by_id.changes();
        effects.extend(changes.map(|(id, node)| effect(node_key(*id), node)));
    }

    fn touch_all(&mut self) {
        self.by_id.touch_all();
    }

    fn settle(&mut self) {
        self.by_id.settle();
    }

    fn shows(&self) -> bool {
        self.by_id.is_changed()
    }

    fn add_counters(&self, whole: &mut MetaState) {
        whole.next_node_id = self.next_id;
    }

    fn add_values(&self, whole: &mut MetaState) {
        whole.nodes = self.by_id.values().cloned().collect();
    }

    fn load(&self, _key: &[u8], value: Bytes, whole: &mut MetaState) -> Result<(), MachineError> {
        whole.nodes.push(read(value)?);
        Ok(())
    }

    fn restore(&mut self, whole: &mut MetaState) -> Result<(), MachineError> {
        let nodes = std::mem::take(&mut whole.nodes).into_iter().map(|node| {
            let id = node.info.as_ref().map_or(0, |info| info.node_id);
            (NodeId(id), node)
        });
        self.by_id = nodes.collect();
        self.next_id = whole.next_node_id;
        Ok(())
    }

    fn show(&self, view: &mut MetadataImage) {
        let nodes = self.by_id.iter();
        view.nodes = nodes.map(|(id, node)| (*id, to_view(*id, node))).collect();
        let understood = self.oldest_understood();
        view.understood = understood.map_or(0, |(_, version)| version);
    }
}

impl Apply for RegisterNode {
    fn since_version(&self) -> u32 {
        match self {
            node if node.in_place_of.is_some() || node.start.is_some() => IDENTITY_SINCE_VERSION,
            node if node.external.is_some() => EXTERNAL_SINCE_VERSION,
            _ => 1,
        }
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn apply(&self, state: &mut State) -> Result<Outcome, CommandError> {
        Ok(state.register_node(self))
    }
}

impl Apply for SetNodeState {
    fn since_version(&self) -> u32 {
        1
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn apply(&self, state: &mut State) -> Result<Outcome, CommandError> {
        Ok(state.set_node_state(self))
    }
}

impl State {
    /// Registers a node at its address. A known incarnation is a known node that has started again. An unknown
    /// one is a new node. At the address of another node, the new node replaces it if the proposer has found
    /// it dead.
    fn register_node(&mut self, command: &RegisterNode) -> Outcome {
        if command.incarnation.len() != INCARNATION_BYTES || command.address.is_empty() {
            return Err(invalid(
                "registration is invalid: a node registers with an incarnation of 16 bytes and its address",
            ));
        }
        let known = self.nodes.by_id.iter();
        let mut known = known.filter(|(_, node)| node.incarnation == command.incarnation);
        let id = match known.next().map(|(id, _)| *id) {
            Some(id) => self.refresh_node(id, command)?,
            None => self.admit_node(command)?,
        };
        let meta_replica_id = self.nodes.by_id.get(&id).map_or(0, |n| n.meta_replica_id);
        Ok(Some(meta_reply::Kind::NodeRegistered(NodeRegistered {
            node_id: id.0,
            meta_replica_id,
        })))
    }

    fn refresh_node(&mut self, id: NodeId, command: &RegisterNode) -> Result<NodeId, WireError> {
        let Some(node) = self.nodes.by_id.get(&id) else {
            return Err(unknown(id));
        };
        if state_of(node) == NodeState::Removed {
            return Err(removed(id));
        }
        if !starts::check(node.start, command.start) {
            return Err(started_twice(id, address_of(node)));
        }
        let new = refreshed(node, id, command);
        if *node != new {
            self.nodes.by_id.put(id, new);
        }
        Ok(id)
    }

    fn admit_node(&mut self, command: &RegisterNode) -> Result<NodeId, WireError> {
        if self.nodes.by_id.len() >= MAX_NODES {
            return Err(WireError::new(
                ErrorCode::Overloaded,
                format!("cluster has had {MAX_NODES} nodes, the limit, and cannot admit another"),
            ));
        }
        let lost = self.lost_by(command)?;
        let id = NodeId(self.nodes.next_id);
        self.nodes.next_id += 1;
        let node = MetaNode {
            info: Some(info_of(id, command, NodeState::Active)),
            incarnation: command.incarnation.clone(),
            meta_replica_id: self.draw_replica(id).replica_id,
            command_version: command.command_version,
            start: command.start,
        };
        self.nodes.by_id.put(id, node);
        if let Some(lost) = lost {
            self.hand_over(lost, id);
        }
        Ok(id)
    }

    /// The node that a new one replaces: the holder of its address. Only the proposer knows which nodes are
    /// dead, so it names the node, and any other holder is an error. Commands before version 9 name no node,
    /// and replace any holder.
    fn lost_by(&self, command: &RegisterNode) -> Result<Option<NodeId>, WireError> {
        let at_address = self.nodes.by_id.iter().find(|(_, node)| {
            address_of(node) == command.address && state_of(node) != NodeState::Removed
        });
        let holder = at_address.map(|(id, _)| *id);
        match (command.in_place_of, holder) {
            (Some(named), Some(holder)) if named != holder.0 => {
                Err(address_in_use(holder, command))
            }
            _ => Ok(holder),
        }
    }

    /// Replaces each replica of a lost node by a new one, with a new id, on the node `heir`. The lost node is
    /// removed.
    fn hand_over(&mut self, lost: NodeId, heir: NodeId) {
        let held = self.topics.partitions().filter(|partition| {
            let mut replicas = partition.replicas.iter();
            replicas.any(|replica| replica.node_id == lost.0)
        });
        let held: Vec<GroupId> = held.map(|partition| GroupId(partition.group_id)).collect();
        for group in held {
            let fresh = self.draw_replica(heir);
            let Some(partition) = self.topics.partition_mut(group) else {
                continue;
            };
            for replica in &mut partition.replicas {
                if replica.node_id == lost.0 && is_planted(PlantedBug::ReuseReplicaIds) {
                    replica.node_id = heir.0;
                } else if replica.node_id == lost.0 {
                    partition.retiring.push(std::mem::replace(replica, fresh));
                }
            }
            self.topics.groups.touch(group);
        }
        self.put_state(lost, NodeState::Removed);
    }

    /// Sets the state that the operator, or the controller, wants for a node.
    fn set_node_state(&mut self, command: &SetNodeState) -> Outcome {
        let id = NodeId(command.node_id);
        let node = self.nodes.by_id.get(&id).ok_or_else(|| unknown(id))?;
        let now = state_of(node);
        if now == command.state() {
            return Ok(None);
        }
        if now == NodeState::Removed {
            return Err(WireError::new(
                ErrorCode::UnknownNode,
                format!("node {id} was permanently removed from this cluster"),
            ));
        }
        match command.state() {
            NodeState::Active | NodeState::Draining => {}
            NodeState::Decommissioning => self.check_decommission(id)?,
            NodeState::Removed => self.check_removal(id, now)?,
            NodeState::Unspecified => {
                return Err(invalid(format!(
                    "node {id} cannot enter an unknown state; ask for active, draining, decommissioning or removed"
                )));
            }
        }
        self.put_state(id, command.state());
        Ok(None)
    }

    fn put_state(&mut self, id: NodeId, state: NodeState) {
        let info = self.nodes.by_id.get_mut(&id).and_then(|n| n.info.as_mut());
        if let Some(info) = info {
            info.state = state.into();
            self.nodes.by_id.touch(id);
        }
    }

    /// Checks that the remaining nodes can hold every topic's replicas.
    fn check_decommission(&self, id: NodeId) -> Result<(), WireError> {
        let stays = |state| matches!(state, NodeState::Active | NodeState::Draining);
        let nodes = self.nodes.by_id.iter();
        let staying = nodes.filter(|(other, node)| **other != id && stays(state_of(node)));
        let staying = staying.count();
        let widest = self.topics.by_name.values().max_by_key(|topic| {
            topic
                .settings
                .as_ref()
                .map_or(0, |settings| settings.replicas)
        });
        let replicas = widest.and_then(|topic| topic.settings.as_ref());
        let replicas = replicas.map_or(1, |settings| settings.replicas);
        if staying >= replicas as usize {
            return Ok(());
        }
        let name = widest.map_or("", |topic| &topic.name);
        Err(WireError::new(
            ErrorCode::Unsafe,
            match widest {
                None => format!("node {id} is the only node; a cluster keeps at least one node"),
                Some(_) => format!(
                    "node {id} cannot be decommissioned: {staying} nodes would remain, and topic {name} has {replicas} replicas; add a node first"
                ),
            },
        ))
    }

    fn check_removal(&self, id: NodeId, now: NodeState) -> Result<(), WireError> {
        let holds = self.topics.partitions().filter(|partition| {
            let mut replicas = partition.replicas.iter().chain(&partition.retiring);
            replicas.any(|replica| replica.node_id == id.0)
        });
        let held = holds.count();
        if now == NodeState::Decommissioning && held == 0 {
            return Ok(());
        }
        Err(WireError::new(
            ErrorCode::Unsafe,
            format!(
                "node {id} holds {held} replicas; decommission it, and the cluster removes it when they have moved"
            ),
        ))
    }
}

fn unknown(id: NodeId) -> WireError {
    WireError::new(
        ErrorCode::UnknownNode,
        format!(
            "node {id} does not exist in this cluster; `ropewalk cluster status` lists its nodes"
        ),
    )
}

fn node_key(node: NodeId) -> Bytes {
    key(NODE, |key| key.put_u64(node.0))
}

fn to_view(id: NodeId, node: &MetaNode) -> NodeImage {
    let info = node.info.clone().unwrap_or_default();
    NodeImage {
        id,
        address: info.address,
        http: info.http,
        external: info.external,
        rack: info.rack,
        version: info.version,
        state: state_of(node),
        meta_replica: ReplicaId(node.meta_replica_id),
    }
}
