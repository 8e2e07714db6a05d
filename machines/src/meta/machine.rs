//! The metadata group's state machine: nodes, topics, and the placement of replicas on nodes.
//!
//! Pure: commands in, effects and replies out. The table of entities says what the metadata holds, and which
//! commands change it; `image` writes and reads the state, entity by entity.

use std::sync::Arc;

use bytes::Bytes;
use ropewalk_proto::command::{Command, CommandError, Reply};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId};
use ropewalk_proto::v1::meta_command::Kind;
use ropewalk_proto::v1::{MetaCommand, MetaNode, MetaReply, NodeState, meta_reply};

use super::entity::cluster::Cluster;
use super::entity::node::Nodes;
use super::entity::producer::Producers;
use super::entity::table::entities;
use super::entity::topic::Topics;
use super::entity::{Apply, Entity, Outcome, newer};
use super::image;
use super::view::MetadataImage;
use crate::machine::{Applied, Machine, MachineError, StateWrite};

entities! {
    cluster: Cluster => [FoundCluster],
    nodes: Nodes => [RegisterNode, SetNodeState],
    producers: Producers => [AllocateProducerIds, RenewProducer],
    topics: Topics => [
        CreateTopic, AlterTopic, DeleteTopic, GrowTopic, PartitionFenced,
        RaiseReplicas, MoveReplicas, SettleReplicas, ReplicaDamaged,
    ],
}

/// Number of entries between two checkpoints of the metadata group.
const CHECKPOINT_EVERY: u64 = 1_000;

/// The state of the metadata group.
#[derive(Debug, Default)]
pub struct MetaMachine {
    /// The metadata. It remembers its changes by the current entry, for the disk.
    pub(super) state: State,
    /// The log index of the last entry applied.
    applied: u64,
    /// The log index of the newest checkpoint.
    checkpointed: u64,
    /// The log index of the last entry that changed the content of a view.
    changed: u64,
}

impl MetaMachine {
    /// The state before the cluster is founded.
    pub fn new() -> MetaMachine {
        MetaMachine::default()
    }

    /// Log index of this state.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The cluster's id; empty until it is founded.
    pub fn cluster_id(&self) -> &str {
        &self.state.cluster.id
    }

    /// One node, as the metadata has it.
    pub fn node(&self, node: NodeId) -> Option<&MetaNode> {
        self.state.nodes.by_id.get(&node)
    }

    /// True if a node holds a replica of a group, also one that is retiring. `None` for an unknown group.
    pub fn holds(&self, node: NodeId, group: GroupId) -> Option<bool> {
        let partition = self.state.topics.partition(group)?;
        let mut replicas = partition.replicas.iter().chain(&partition.retiring);
        Some(replicas.any(|replica| replica.node_id == node.0))
    }

    /// All nodes, as the metadata has them.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &MetaNode)> {
        let nodes = self.state.nodes.by_id.iter();
        nodes.map(|(id, node)| (*id, node))
    }

    /// Of the nodes that are not removed, the one with the lowest command version, and that version.
    pub fn oldest_understood(&self) -> Option<(NodeId, u32)> {
        self.state.nodes.oldest_understood()
    }

    /// The log index of the last entry that changed the content of [`MetaMachine::to_view`].
    pub fn changed(&self) -> u64 {
        self.changed
    }

    /// The state in the form that the other rooms of the node read.
    pub fn to_view(&self) -> MetadataImage {
        let mut view = MetadataImage {
            applied: self.applied,
            ..MetadataImage::default()
        };
        for entity in self.state.entities() {
            entity.show(&mut view);
        }
        view
    }

    fn execute(&mut self, command: &MetaCommand) -> Result<Outcome, CommandError> {
        let Some(kind) = &command.kind else {
            return Err(newer());
        };
        if self.state.cluster.id.is_empty() && !matches!(kind, Kind::FoundCluster(_)) {
            return Ok(Err(WireError::new(
                ErrorCode::NotServing,
                "cluster is not founded yet; try again shortly",
            )));
        }
        handler(kind).apply(&mut self.state)
    }
}

/// The lowest command version of a node that can apply a command.
pub fn since_version(kind: &Kind) -> u32 {
    handler(kind).since_version()
}

/// True if a command may be proposed again after an unknown outcome: a second time it changes nothing, or
/// wastes a few ids.
pub fn is_repeatable(kind: &Kind) -> bool {
    handler(kind).is_repeatable()
}

/// The state of a node. A missing or unknown one counts as active.
pub fn state_of(node: &MetaNode) -> NodeState {
    match node.info.as_ref().map(|info| info.state()) {
        None | Some(NodeState::Unspecified) => NodeState::Active,
        Some(state) => state,
    }
}

/// The address of a node.
pub fn address_of(node: &MetaNode) -> &str {
    node.info.as_ref().map_or("", |info| &info.address)
}

/// The first replica id of a cluster. Clusters begin at different ids. So a node at an address that once was
/// another cluster's is never taken for the replica that was there.
pub fn first_replica_id(cluster_id: &str) -> ReplicaId {
    // FNV-1a. The result stays below 2^52, which every JSON reader can hold.
    let hash = cluster_id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| {
        (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    });
    ReplicaId(((hash >> 20) & 0x3fff_ffff) << 22 | 1)
}

impl Machine for MetaMachine {
    fn load(&mut self, applied: u64, effects: Vec<(Bytes, Bytes)>) -> Result<(), MachineError> {
        let (state, checkpointed) = image::load(effects)?;
        *self = MetaMachine {
            state,
            applied,
            checkpointed,
            changed: applied,
        };
        Ok(())
    }

    fn apply(
        &mut self,
        index: u64,
        _term: u64,
        _entry_bytes: u64,
        command: Option<&Command>,
    ) -> Result<Applied, MachineError> {
        let reply = match command {
            None => Reply::Done,
            Some(Command::Meta(command)) => {
                let kind = self
                    .execute(command)?
                    .unwrap_or_else(|error| Some(meta_reply::Kind::Error(error.into())));
                Reply::Meta(MetaReply { kind })
            }
            Some(other) => Reply::Refused(WireError::new(
                ErrorCode::InvalidRequest,
                format!("metadata group does not accept this command: {other}"),
            )),
        };
        self.applied = index;
        let checkpoint = index >= self.checkpointed + CHECKPOINT_EVERY;
        if checkpoint {
            self.checkpointed = index;
        }
        if self.state.entities().iter().any(|entity| entity.shows()) {
            self.changed = index;
        }
        Ok(Applied {
            reply,
            effects: image::settle(&mut self.state, checkpoint.then_some(index)),
            checkpoint,
        })
    }

    fn checkpoint(&self) -> Bytes {
        image::checkpoint(&self.state, self.applied)
    }

    fn restore(&mut self, checkpoint: Bytes) -> Result<Vec<StateWrite>, MachineError> {
        let (mut state, applied) = image::restore(checkpoint)?;
        let effects = image::everything(&mut state, applied);
        *self = MetaMachine {
            state,
            applied,
            checkpointed: applied,
            changed: applied,
        };
        Ok(effects)
    }

    fn purgeable_index(&self) -> u64 {
        self.checkpointed
    }
}

impl From<&MetaMachine> for Arc<MetadataImage> {
    fn from(machine: &MetaMachine) -> Arc<MetadataImage> {
        Arc::new(machine.to_view())
    }
}
