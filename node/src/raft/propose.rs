//! Proposals, and the outcome of a write that openraft answered with an error. No other place decides it: each
//! proposer asks here, and words the answer for its own callers.

use std::time::Duration;

use openraft::errors::{ClientWriteError, ForwardToLeader, RaftError};
use openraft::raft::ClientWriteResponse;
use ropewalk_machines::Machine;
use ropewalk_proto::command::Command;
use ropewalk_raft_store::{Raft, TypeConfig};
use tokio::time::timeout;

/// Outcome of a write to which Raft returned no reply.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The write never became an entry: this replica is not the leader, or must not write now.
    #[error("{0}")]
    NotProposed(ForwardToLeader<TypeConfig>),
    /// The write may be an entry, here or elsewhere, and may yet be committed. The text is the reason.
    #[error("{0}")]
    InDoubt(String),
    /// Raft did not answer in time. The write may be an entry, and may yet be committed.
    #[error("no majority confirmed the write in time, and it may still be made")]
    Late,
}

/// Proposes a command to a replica, and returns its reply once a majority has it on disk and it is applied here.
///
/// # Errors
/// The outcome of the write, if there is no reply `within` that time.
pub async fn propose<M: Machine>(
    raft: &Raft<M>,
    command: Command,
    within: Duration,
) -> Result<ClientWriteResponse<TypeConfig>, Unanswered> {
    match timeout(within, raft.client_write(command)).await {
        Ok(answered) => answered.map_err(Unanswered::from),
        Err(_) => Err(Unanswered::Late),
    }
}

impl From<ClientWriteError<TypeConfig>> for Unanswered {
    fn from(error: ClientWriteError<TypeConfig>) -> Unanswered {
        match error {
            ClientWriteError::ForwardToLeader(forward) => Unanswered::NotProposed(forward),
            ClientWriteError::LogEntryDiscarded(_) => Unanswered::InDoubt(
                "another node became leader before the change was confirmed".to_owned(),
            ),
            // Never returned for writes that change no membership and set no condition.
            other => Unanswered::InDoubt(other.to_string()),
        }
    }
}

impl From<RaftError<TypeConfig, ClientWriteError<TypeConfig>>> for Unanswered {
    fn from(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Unanswered {
        match error {
            RaftError::APIError(error) => error.into(),
            // The Raft core may have stopped after it sent the entry to other nodes.
            RaftError::Fatal(fatal) => {
                Unanswered::InDoubt(format!("the replica on this node has stopped: {fatal}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::errors::Fatal;

    use super::*;

    #[test]
    fn only_what_was_never_proposed_is_known_not_to_be_done() {
        let forward = ForwardToLeader::<TypeConfig>::empty();
        let elsewhere = ClientWriteError::ForwardToLeader(forward.clone());
        let discarded = ClientWriteError::LogEntryDiscarded(forward);
        let is_in_doubt =
            |error: RaftError<_, _>| matches!(Unanswered::from(error), Unanswered::InDoubt(_));
        assert!(!is_in_doubt(RaftError::APIError(elsewhere)));
        assert!(is_in_doubt(RaftError::APIError(discarded)));
        assert!(is_in_doubt(RaftError::Fatal(Fatal::Stopped)));
    }
}
