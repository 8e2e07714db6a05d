//! Steps from a group's actual membership to its desired one. A leader goes one small step at a time, and derives
//! each from the current state. So it can stop anywhere, and any later leader can go on.
//!
//! **A step is valid for one membership only**: it is not taken if the membership has changed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::{ChangeMembers, Precondition};
use ropewalk_machines::Machine;
use ropewalk_proto::ids::ReplicaId;
use ropewalk_raft_store::types::LogId;
use ropewalk_raft_store::{Raft, RaftNode};
use tokio::time::timeout;

/// One step of a membership change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Adds a new replica as a learner.
    AddLearner(ReplicaId, RaftNode),
    /// Updates the address of a replica's node.
    MoveMember(ReplicaId, RaftNode),
    /// Makes exactly these replicas voters. All other voters lose their vote.
    SetVoters(BTreeSet<ReplicaId>),
    /// Removes these learners.
    RemoveLearners(BTreeSet<ReplicaId>),
}

/// Place of former voters after a step that takes their votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormerVoters {
    /// They leave the group.
    Leave,
    /// They stay in the group as learners.
    StayAsLearners,
}

/// Reason that a step has not been taken yet.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// Raft refused the step: this replica does not lead, the membership is another one, or a change is in
    /// progress. The text is Raft's.
    #[error("{0}")]
    Refused(String),
    /// The step is still in progress.
    #[error("membership change is still in progress")]
    Late,
}

impl Step {
    fn change(self) -> ChangeMembers<ReplicaId, RaftNode> {
        match self {
            Step::AddLearner(replica, broker) => {
                ChangeMembers::AddNodes(BTreeMap::from([(replica, broker)]))
            }
            Step::MoveMember(replica, broker) => {
                ChangeMembers::SetNodes(BTreeMap::from([(replica, broker)]))
            }
            Step::SetVoters(voters) => ChangeMembers::ReplaceAllVoters(voters),
            Step::RemoveLearners(replicas) => ChangeMembers::RemoveNodes(replicas),
        }
    }
}

/// Takes a step that was decided for the membership of entry `since`, and waits for it for a bounded time.
///
/// # Errors
/// [`NotTaken`]. The leader derives its next step from the state that it then finds.
pub async fn take_step<M: Machine>(
    raft: &Raft<M>,
    step: Step,
    since: Option<LogId>,
    former_voters: FormerVoters,
    within: Duration,
) -> Result<(), NotTaken> {
    let still = Precondition::LastMembershipLogId {
        last_membership_log_id: since,
    };
    let retain = former_voters == FormerVoters::StayAsLearners;
    let changed = raft.change_membership_if(step.change(), retain, [still]);
    match timeout(within, changed).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(NotTaken::Refused(error.to_string())),
        Err(_) => Err(NotTaken::Late),
    }
}
