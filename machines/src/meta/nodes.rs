//! Commands about nodes, as the state machine of the metadata group applies them. The leader has checked a
//! registration before it proposed it (`admission`).

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, NodeId};
use ropewalk_proto::mistake::{Mistake, made};
use ropewalk_proto::v1::{
    FoundCluster, FoundingNode, MetaNode, NodeInfo, NodeRegistered, NodeState, RegisterNode,
    SetNodeState, meta_reply,
};

use super::frozen::MAX_NODES;
use super::machine::{MetaMachine, Outcome, address_of, first_replica_id, state_of};
use super::{invalid, starts};

/// Length of a node's incarnation in bytes.
pub const INCARNATION_BYTES: usize = 16;

/// The refusal of a node that was removed. It may not know of its removal, since the others no longer contact
/// it.
pub fn removed(id: NodeId) -> WireError {
    WireError::new(
        ErrorCode::NodeRemoved,
        format!(
            "node {id} was removed from this cluster; to use the machine again, stop it, empty \
             its data directory and start it as a new node"
        ),
    )
}

/// The refusal of a process while another one runs under the node's identity, or after one has. Its data
/// directory is a copy, or an older state of the node's own.
pub fn started_twice(id: NodeId, address: &str) -> WireError {
    WireError::new(
        ErrorCode::StartedTwice,
        format!(
            "node {id} runs at {address} already, or has run there since: this data directory is \
             a copy or an older state (a restored backup), lacks the node's later changes, and \
             never runs again; to use the machine, empty the directory and start it as a new node"
        ),
    )
}

/// The refusal of an address that belongs to another node.
pub fn address_in_use(holder: NodeId, command: &RegisterNode) -> WireError {
    let incarnation = beginning_of(&command.incarnation);
    let address = &command.address;
    WireError::new(
        ErrorCode::AddressInUse,
        format!(
            "address {address} belongs to node {holder}, which is alive or may return, and the \
             node of incarnation {incarnation}… cannot have it: give that node an --advertise of \
             its own; to replace node {holder}, stop it and start the new node where {address} \
             leads"
        ),
    )
}

/// The refusal of a new node that does not answer at its registered address.
pub fn not_at_its_address(command: &RegisterNode) -> WireError {
    let incarnation = beginning_of(&command.incarnation);
    let address = &command.address;
    WireError::new(
        ErrorCode::AddressInUse,
        format!(
            "address {address} does not lead to the node of incarnation {incarnation}…, which \
             registers it: give that node an --advertise at which the other nodes reach it"
        ),
    )
}

/// The refusal of a registration that differs from the node's own.
pub fn says_otherwise(command: &RegisterNode) -> WireError {
    let incarnation = beginning_of(&command.incarnation);
    let address = &command.address;
    WireError::new(
        ErrorCode::InvalidRequest,
        format!(
            "registration of incarnation {incarnation}… was refused because it differs from what \
             the node at {address} reports about itself; a node registers by itself when it starts"
        ),
    )
}

/// The refusal of a node with an older command version than the cluster may have written.
pub fn too_old(command: &RegisterNode, understood: u32) -> WireError {
    let (version, known) = (&command.version, command.command_version);
    WireError::new(
        ErrorCode::UnsupportedVersion,
        format!(
            "node at {} is of version {version} and understands commands up to version {known}; \
             all nodes of this cluster understand version {understood}, which would stop it: \
             start it with the same version as the other nodes",
            command.address
        ),
    )
}

/// The first bytes of an incarnation, for messages and logs.
fn beginning_of(incarnation: &[u8]) -> String {
    let bytes = incarnation.iter().take(4);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

impl MetaMachine {
    /// Founds the cluster. It is the first command of a cluster. The same plan again changes nothing, since
    /// every founding node proposes it until it is applied.
    pub(super) fn found_cluster(&mut self, command: &FoundCluster) -> Outcome {
        if self.state.cluster_id == command.cluster_id && !command.cluster_id.is_empty() {
            return Ok(None);
        }
        if !self.state.cluster_id.is_empty() {
            let known = &self.state.cluster_id;
            return Err(invalid(format!("cluster is already founded, as {known}")));
        }
        check_founders(command)?;
        let first = first_replica_id(&command.cluster_id).0;
        let mut last = 0;
        for founder in &command.nodes {
            let id = NodeId(founder.node_id);
            let replica = first + founder.node_id;
            self.state.nodes.insert(id, founding_node(founder, replica));
            self.touched.nodes.insert(id);
            last = last.max(founder.node_id);
        }
        self.state.cluster_id = command.cluster_id.clone();
        let next = &mut self.state.next;
        next.node = last + 1;
        next.replica = first + last + 1;
        (next.topic, next.group, next.producer) = (1, 1, 1);
        self.touched.counters = true;
        Ok(None)
    }

    /// Registers a node at its address. A known incarnation is a known node that has started again. An unknown
    /// one is a new node. At the address of another node, the new node replaces it if the proposer has found
    /// it dead.
    pub(super) fn register_node(&mut self, command: &RegisterNode) -> Outcome {
        if command.incarnation.len() != INCARNATION_BYTES || command.address.is_empty() {
            return Err(invalid(
                "registration is invalid: a node registers with an incarnation of 16 bytes and \
                 its address",
            ));
        }
        let known = self.state.nodes.iter();
        let mut known = known.filter(|(_, node)| node.incarnation == command.incarnation);
        let id = match known.next().map(|(id, _)| *id) {
            Some(id) => self.refresh_node(id, command)?,
            None => self.admit_node(command)?,
        };
        let meta_replica_id = self.state.nodes.get(&id).map_or(0, |n| n.meta_replica_id);
        Ok(Some(meta_reply::Kind::NodeRegistered(NodeRegistered {
            node_id: id.0,
            meta_replica_id,
        })))
    }

    fn refresh_node(&mut self, id: NodeId, command: &RegisterNode) -> Result<NodeId, WireError> {
        let Some(node) = self.state.nodes.get_mut(&id) else {
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
            *node = new;
            self.touched.nodes.insert(id);
        }
        Ok(id)
    }

    fn admit_node(&mut self, command: &RegisterNode) -> Result<NodeId, WireError> {
        if self.state.nodes.len() >= MAX_NODES {
            return Err(WireError::new(
                ErrorCode::Overloaded,
                format!("cluster has had {MAX_NODES} nodes, the limit, and cannot admit another"),
            ));
        }
        let lost = self.lost_by(command)?;
        let id = NodeId(self.state.next.node);
        self.state.next.node += 1;
        let node = MetaNode {
            info: Some(info_of(id, command, NodeState::Active)),
            incarnation: command.incarnation.clone(),
            meta_replica_id: self.draw_replica(id).replica_id,
            command_version: command.command_version,
            start: command.start,
        };
        self.state.nodes.insert(id, node);
        self.touched.nodes.insert(id);
        if let Some(lost) = lost {
            self.hand_over(lost, id);
        }
        Ok(id)
    }

    /// The node that a new one replaces: the holder of its address. Only the proposer knows which nodes are
    /// dead, so it names the node, and any other holder is an error. Commands before version 9 name no node,
    /// and replace any holder.
    fn lost_by(&self, command: &RegisterNode) -> Result<Option<NodeId>, WireError> {
        let at_address = self.state.nodes.iter().find(|(_, node)| {
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
        let held = self.state.partitions().filter(|partition| {
            let mut replicas = partition.replicas.iter();
            replicas.any(|replica| replica.node_id == lost.0)
        });
        let held: Vec<GroupId> = held.map(|partition| GroupId(partition.group_id)).collect();
        for group in held {
            let fresh = self.draw_replica(heir);
            let Some(partition) = self.state.partition_mut(group) else {
                continue;
            };
            for replica in &mut partition.replicas {
                if replica.node_id == lost.0 && made(Mistake::ReuseReplicaIds) {
                    replica.node_id = heir.0;
                } else if replica.node_id == lost.0 {
                    partition.retiring.push(std::mem::replace(replica, fresh));
                }
            }
            self.touched.groups.insert(group);
        }
        self.put_state(lost, NodeState::Removed);
    }

    /// Sets the state that the operator, or the controller, wants for a node.
    pub(super) fn set_node_state(&mut self, command: &SetNodeState) -> Outcome {
        let id = NodeId(command.node_id);
        let node = self.state.nodes.get(&id).ok_or_else(|| unknown(id))?;
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
                    "node {id} cannot enter an unknown state; ask for active, draining, \
                     decommissioning or removed"
                )));
            }
        }
        self.put_state(id, command.state());
        Ok(None)
    }

    fn put_state(&mut self, id: NodeId, state: NodeState) {
        let info = self.state.nodes.get_mut(&id).and_then(|n| n.info.as_mut());
        if let Some(info) = info {
            info.state = state.into();
            self.touched.nodes.insert(id);
        }
    }

    /// Checks that the remaining nodes can hold every topic's replicas.
    fn check_decommission(&self, id: NodeId) -> Result<(), WireError> {
        let stays = |state| matches!(state, NodeState::Active | NodeState::Draining);
        let nodes = self.state.nodes.iter();
        let staying = nodes.filter(|(other, node)| **other != id && stays(state_of(node)));
        let staying = staying.count();
        let widest = self.state.topics.values().max_by_key(|topic| {
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
                    "node {id} cannot be decommissioned: {staying} nodes would remain, and topic \
                     {name} has {replicas} replicas; add a node first"
                ),
            },
        ))
    }

    fn check_removal(&self, id: NodeId, now: NodeState) -> Result<(), WireError> {
        let holds = self.state.partitions().filter(|partition| {
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
                "node {id} holds {held} replicas; decommission it, and the cluster removes it \
                 when they have moved"
            ),
        ))
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
            "founding plan is invalid: it needs a cluster id, and nodes that each have an id, an \
             address and an incarnation",
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

fn info_of(id: NodeId, command: &RegisterNode, state: NodeState) -> NodeInfo {
    NodeInfo {
        node_id: id.0,
        address: command.address.clone(),
        http: command.http.clone(),
        rack: command.rack.clone(),
        state: state.into(),
        version: command.version.clone(),
        external: command.external.clone().unwrap_or_default(),
    }
}

/// The metadata of a known node after its registration.
pub fn refreshed(node: &MetaNode, id: NodeId, command: &RegisterNode) -> MetaNode {
    let before = node.info.as_ref().map_or("", |info| &info.external);
    MetaNode {
        info: Some(NodeInfo {
            external: command.external.as_deref().unwrap_or(before).to_owned(),
            ..info_of(id, command, state_of(node))
        }),
        start: command.start.or(node.start),
        command_version: command.command_version,
        ..node.clone()
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
