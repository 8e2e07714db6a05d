//! The types that openraft is instantiated with, the same for every group.

use std::fmt;

use bytes::Bytes;
use ropewalk_proto::command::{Command, Reply};
use ropewalk_proto::ids::{NodeId, ReplicaId};

use crate::openraft_state_machine::StateMachine;

/// Location of a replica: openraft's `Node`. Its `NodeId` is our [`ReplicaId`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RaftNode {
    /// The node that holds the replica.
    pub node_id: NodeId,
    /// Address of that node, host:port.
    pub address: String,
}

impl fmt::Display for RaftNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} at {}", self.node_id, self.address)
    }
}

openraft::declare_raft_types!(
    /// All groups of Ropewalk. The leader id is Raft's classic one (one leader a term), since clients see
    /// terms as leader epochs.
    pub TypeConfig:
        D = Command,
        R = Reply,
        NodeId = ReplicaId,
        Node = RaftNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, ReplicaId>,
        AsyncRuntime = crate::runtime::SeededRuntime,
);

pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub type Membership = openraft::Membership<ReplicaId, RaftNode>;
/// A checkpoint as openraft's snapshot: the machine's whole state.
pub type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Bytes>;
/// One replica of one group.
pub type Raft<M> = openraft::Raft<TypeConfig, StateMachine<M>>;
