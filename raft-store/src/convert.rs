//! Conversions between openraft's types and the messages on the wire and on the disk.
//!
//! Both sides are foreign types, so these are functions: `x` makes the message, `from_x` reads it.

use std::collections::{BTreeMap, BTreeSet};

use ropewalk_proto::ids::{NodeId, ReplicaId};
use ropewalk_proto::v1;

use crate::types::{LogId, Membership, RaftNode, StoredMembership, Vote};

/// Largest valid term and log index. No group reaches it. openraft counts on from any number it receives,
/// and panics when the number overflows.
pub const LARGEST_TERM: u64 = 1 << 48;

/// A message that openraft can't use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A required field is missing.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// A membership with an empty voter set, or with a voter that is not among its members.
    #[error("membership is invalid: {0}")]
    Membership(String),
    /// A term or an index that no group reaches.
    #[error("{0} {1} is above {LARGEST_TERM}, which no group reaches")]
    Beyond(&'static str, u64),
}

/// The message of a log id.
pub fn log_id(log_id: &LogId) -> v1::LogId {
    v1::LogId {
        term: log_id.committed_leader_id().term,
        index: log_id.index,
    }
}

/// The log id of a message.
pub fn from_log_id(message: v1::LogId) -> Result<LogId, ConvertError> {
    check("term", message.term)?;
    check("index", message.index)?;
    Ok(LogId::new_term_index(message.term, message.index))
}

/// Refuses a number above [`LARGEST_TERM`]. The error calls it `name`.
pub fn check(name: &'static str, number: u64) -> Result<(), ConvertError> {
    match number > LARGEST_TERM {
        true => Err(ConvertError::Beyond(name, number)),
        false => Ok(()),
    }
}

/// The message of a vote.
pub fn vote(vote: &Vote) -> v1::Vote {
    v1::Vote {
        term: vote.leader_id.term,
        replica_id: vote.leader_id.voted_for.0,
        has_replica_id: true,
        committed: vote.committed,
    }
}

/// The vote of a message. openraft's votes always name a replica.
pub fn from_vote(message: v1::Vote) -> Result<Vote, ConvertError> {
    if !message.has_replica_id {
        return Err(ConvertError::Missing("vote.replica_id"));
    }
    check("term", message.term)?;
    let replica = ReplicaId(message.replica_id);
    Ok(match message.committed {
        true => Vote::new_committed(message.term, replica),
        false => Vote::new(message.term, replica),
    })
}

/// The message of a membership.
pub fn membership(membership: &Membership) -> v1::Membership {
    let voters = membership.get_joint_config().iter();
    v1::Membership {
        voters: voters
            .map(|set| v1::VoterSet {
                replica_ids: set.iter().map(|replica| replica.0).collect(),
            })
            .collect(),
        members: membership
            .nodes()
            .map(|(replica, broker)| v1::Member {
                replica_id: replica.0,
                node_id: broker.node_id.0,
                address: broker.address.clone(),
            })
            .collect(),
    }
}

/// The membership of a message.
pub fn from_membership(message: v1::Membership) -> Result<Membership, ConvertError> {
    let voters: Vec<BTreeSet<ReplicaId>> = message
        .voters
        .into_iter()
        .map(|set| set.replica_ids.into_iter().map(ReplicaId).collect())
        .collect();
    let members: BTreeMap<ReplicaId, RaftNode> = message
        .members
        .into_iter()
        .map(|member| {
            let broker = RaftNode {
                node_id: NodeId(member.node_id),
                address: member.address,
            };
            (ReplicaId(member.replica_id), broker)
        })
        .collect();
    Membership::new(voters, members).map_err(|error| ConvertError::Membership(error.to_string()))
}

/// The message of a membership and the log id of its entry.
pub fn stored_membership(stored: &StoredMembership) -> v1::StoredMembership {
    v1::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id),
        membership: Some(membership(stored.membership())),
    }
}

/// The membership of a message, with the log id of its entry.
pub fn from_stored_membership(
    message: v1::StoredMembership,
) -> Result<StoredMembership, ConvertError> {
    let membership = message
        .membership
        .ok_or(ConvertError::Missing("stored_membership.membership"))?;
    Ok(StoredMembership::new(
        message.log_id.map(from_log_id).transpose()?,
        from_membership(membership)?,
    ))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn some_membership() -> Membership {
        let broker = |id: u64| RaftNode {
            node_id: NodeId(id),
            address: format!("node-{id}:7000"),
        };
        let members = (1..=4).map(|id| (ReplicaId(id), broker(id)));
        let voters = [[1, 2, 3], [2, 3, 4]];
        Membership::new(
            voters.map(|set| set.map(ReplicaId).into()).into(),
            members.collect::<BTreeMap<_, _>>(),
        )
        .expect("every voter has a place")
    }

    #[test]
    fn what_is_converted_comes_back_the_same() {
        let id = LogId::new_term_index(3, 9);
        assert_eq!(from_log_id(log_id(&id)), Ok(id));
        for original in [
            Vote::new(5, ReplicaId(2)),
            Vote::new_committed(5, ReplicaId(2)),
        ] {
            assert_eq!(from_vote(vote(&original)), Ok(original));
        }
        for original in [
            StoredMembership::default(),
            StoredMembership::new(Some(id), some_membership()),
        ] {
            let message = stored_membership(&original);
            assert_eq!(from_stored_membership(message), Ok(original));
        }
    }

    #[test]
    fn a_message_that_makes_no_sense_is_refused() {
        assert!(from_vote(v1::Vote::default()).is_err());
        for beyond in [LARGEST_TERM + 1, u64::MAX] {
            assert!(from_vote(vote(&Vote::new(beyond, ReplicaId(1)))).is_err());
            let of_term = LogId::new_term_index(beyond, 1);
            let at_index = LogId::new_term_index(1, beyond);
            for id in [of_term, at_index] {
                assert!(from_log_id(log_id(&id)).is_err());
                let stored = StoredMembership::new(Some(id), some_membership());
                assert!(from_stored_membership(stored_membership(&stored)).is_err());
            }
        }
        assert!(from_stored_membership(v1::StoredMembership::default()).is_err());
        let unplaced = v1::Membership {
            voters: vec![v1::VoterSet {
                replica_ids: vec![1],
            }],
            members: vec![],
        };
        assert!(from_membership(unplaced).is_err());
    }
}
