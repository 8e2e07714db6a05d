//! The metadata group's state machine: nodes, topics, and the placement of replicas on nodes.
//!
//! Pure: commands in, effects and replies out. `nodes`, `topics` and `moves` apply the commands; `mirror`
//! defines the state's format on the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ropewalk_proto::command::{COMMAND_VERSION, Command, CommandError, Reply};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId};
use ropewalk_proto::v1::{
    MetaCommand, MetaNode, MetaPartition, MetaReplica, MetaReply, MetaTopic, NodeState,
    meta_command, meta_reply,
};

use super::mirror::Touched;
use super::producers::Epochs;
use super::view::ClusterView;
use crate::machine::{Applied, Effect, Machine, MachineError};

/// Number of entries between two checkpoints of the metadata group.
const CHECKPOINT_EVERY: u64 = 1_000;

/// The kind byte of a metadata command, for error messages (see `proto/src/command.rs`).
const KIND_META: u8 = 4;

/// The result of a command: a reply's kind, no content, or the reason for a refusal.
pub(super) type Outcome = Result<Option<meta_reply::Kind>, WireError>;

/// The state of the metadata group.
#[derive(Debug, Default)]
pub struct MetaMachine {
    pub(super) state: State,
    /// Changes by the current entry, for the disk.
    pub(super) touched: Touched,
    /// The log index of the last entry applied.
    pub(super) applied: u64,
    /// The log index of the newest checkpoint.
    pub(super) checkpointed: u64,
    /// The log index of the last entry that changed the content of a view.
    changed: u64,
}

/// The metadata itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct State {
    pub cluster_id: String,
    pub nodes: BTreeMap<NodeId, MetaNode>,
    /// By name. The `partitions` of each are complete and in order.
    pub topics: BTreeMap<String, MetaTopic>,
    pub next: Counters,
    pub epochs: Epochs,
    /// The topic and number of each group's partition. Derived from `topics`.
    pub groups: BTreeMap<GroupId, (String, u32)>,
}

/// The next number of each kind. No number is given out twice.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counters {
    pub node: u64,
    pub topic: u64,
    pub group: u64,
    pub replica: u64,
    pub producer: u64,
    /// Ring version of the next topic; 0 while no topic was deleted.
    pub ring_version: u32,
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
        &self.state.cluster_id
    }

    /// One node, as the metadata has it.
    pub fn node(&self, node: NodeId) -> Option<&MetaNode> {
        self.state.nodes.get(&node)
    }

    /// True if a node holds a replica of a group, also one that is retiring. `None` for an unknown group.
    pub fn holds(&self, node: NodeId, group: GroupId) -> Option<bool> {
        let partition = self.state.partition(group)?;
        let mut replicas = partition.replicas.iter().chain(&partition.retiring);
        Some(replicas.any(|replica| replica.node_id == node.0))
    }

    /// All nodes, as the metadata has them.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &MetaNode)> {
        self.state.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// Of the nodes that are not removed, the one with the lowest command version, and that version.
    pub fn oldest_understood(&self) -> Option<(NodeId, u32)> {
        let nodes = self.state.nodes.iter();
        let nodes = nodes.filter(|(_, node)| state_of(node) != NodeState::Removed);
        let versions = nodes.map(|(id, node)| (node.command_version, *id));
        versions.min().map(|(version, id)| (id, version))
    }

    /// The log index of the last entry that changed the content of [`MetaMachine::to_view`].
    pub fn changed(&self) -> u64 {
        self.changed
    }

    /// The state in the form that the other rooms of the node read.
    pub fn to_view(&self) -> ClusterView {
        let understood = self.oldest_understood();
        let understood = understood.map_or(0, |(_, version)| version);
        ClusterView::of(&self.state, self.applied, understood)
    }

    fn execute(&mut self, command: &MetaCommand) -> Result<Outcome, CommandError> {
        use meta_command::Kind;
        let Some(kind) = &command.kind else {
            return Err(newer());
        };
        if self.state.cluster_id.is_empty() && !matches!(kind, Kind::FoundCluster(_)) {
            return Ok(Err(WireError::new(
                ErrorCode::NotServing,
                "cluster is not founded yet; try again shortly",
            )));
        }
        Ok(match kind {
            Kind::FoundCluster(command) => self.found_cluster(command),
            Kind::RegisterNode(command) => self.register_node(command),
            Kind::SetNodeState(command) => self.set_node_state(command),
            Kind::CreateTopic(command) => self.create_topic(command),
            Kind::AlterTopic(command) => self.alter_topic(command)?,
            Kind::DeleteTopic(command) => self.delete_topic(command),
            Kind::AllocateProducerIds(command) => self.allocate_producer_ids(command),
            Kind::MoveReplicas(command) => self.move_replicas(command),
            Kind::SettleReplicas(command) => self.settle_replicas(command),
            Kind::ReplicaDamaged(command) => self.replica_damaged(command),
            Kind::GrowTopic(command) => self.grow_topic(command),
            Kind::PartitionFenced(fact) => self.partition_fenced(fact),
            Kind::RaiseReplicas(command) => self.raise_replicas(command),
            Kind::RenewProducer(command) => self.renew_producer(command),
        })
    }

    /// A new replica id. No replica had it before.
    pub(super) fn draw_replica(&mut self, node: NodeId) -> MetaReplica {
        let replica_id = self.state.next.replica;
        self.state.next.replica += 1;
        self.touched.counters = true;
        MetaReplica {
            replica_id,
            node_id: node.0,
        }
    }
}

impl State {
    /// The partition of a group.
    pub fn partition(&self, group: GroupId) -> Option<&MetaPartition> {
        let (topic, partition) = self.groups.get(&group)?;
        self.topics.get(topic)?.partitions.get(*partition as usize)
    }

    /// The partition of a group, mutable.
    pub fn partition_mut(&mut self, group: GroupId) -> Option<&mut MetaPartition> {
        let (topic, partition) = self.groups.get(&group)?;
        let topic = self.topics.get_mut(topic)?;
        topic.partitions.get_mut(*partition as usize)
    }

    /// Every partition.
    pub fn partitions(&self) -> impl Iterator<Item = &MetaPartition> {
        self.topics.values().flat_map(|topic| &topic.partitions)
    }

    /// The nodes that can get new replicas.
    pub fn placeable(&self) -> impl Iterator<Item = (NodeId, &MetaNode)> {
        self.nodes
            .iter()
            .filter(|(_, node)| state_of(node) == NodeState::Active)
            .map(|(id, node)| (*id, node))
    }

    /// Rebuilds the index that is derived from the topics.
    pub fn index_groups(&mut self) {
        self.groups = BTreeMap::new();
        for topic in self.topics.values() {
            for partition in &topic.partitions {
                let place = (topic.name.clone(), partition.partition);
                self.groups.insert(GroupId(partition.group_id), place);
            }
        }
    }
}

/// The error for a command of a newer build. The machine stops at it.
pub(super) fn newer() -> CommandError {
    CommandError::Newer {
        version: COMMAND_VERSION,
        kind: KIND_META,
    }
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
        let (state, checkpointed) = super::mirror::load(effects)?;
        *self = MetaMachine {
            state,
            applied,
            checkpointed,
            changed: applied,
            ..MetaMachine::default()
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
            self.touched.checkpointed = true;
        }
        if self.touched.shows() {
            self.changed = index;
        }
        let touched = std::mem::take(&mut self.touched);
        Ok(Applied {
            reply,
            effects: touched.effects(&self.state, self.checkpointed),
            checkpoint,
        })
    }

    fn checkpoint(&self) -> Bytes {
        super::mirror::checkpoint(&self.state, self.applied)
    }

    fn restore(&mut self, checkpoint: Bytes) -> Result<Vec<Effect>, MachineError> {
        let (state, applied) = super::mirror::restore(checkpoint)?;
        let effects = super::mirror::everything(&state, applied);
        *self = MetaMachine {
            state,
            applied,
            checkpointed: applied,
            changed: applied,
            ..MetaMachine::default()
        };
        Ok(effects)
    }

    fn purgeable_index(&self) -> u64 {
        self.checkpointed
    }
}

impl From<&MetaMachine> for Arc<ClusterView> {
    fn from(machine: &MetaMachine) -> Arc<ClusterView> {
        Arc::new(machine.to_view())
    }
}
