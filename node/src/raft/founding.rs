//! The first membership of a new group, and the elections that follow it.
//!
//! Every founding member may write the first membership, since all of them write the same. A replica that was
//! added later never does, because the group has a history that it must receive.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::errors::Fatal;
use ropewalk_machines::Machine;
use ropewalk_proto::ids::ReplicaId;
use ropewalk_raft_store::{Raft, RaftNode, TypeConfig};
use tokio::time::Instant;

use crate::config::Limits;

/// Time for which a replica that has founded its group requests votes. It does not wait for the election
/// timeout, because its peers may start a moment later.
const EAGER_FOR: Duration = Duration::from_secs(10);

/// Returns the time that the founding member at `place` of the list waits before it founds the group. The first
/// one starts at once, and each other one later than the one before it. So they do not compete for the
/// leadership.
pub fn patience(limits: &Limits, place: usize) -> Duration {
    let place = u32::try_from(place).unwrap_or(u32::MAX);
    let turn = Duration::from_millis(limits.election_timeout_ms).saturating_mul(2);
    turn.saturating_mul(place)
}

/// Elections of a group that this replica has founded, requested without a timeout.
#[derive(Debug)]
pub struct EagerElections {
    since: Instant,
}

impl EagerElections {
    /// Elections that count their time from `since`.
    pub fn new(since: Instant) -> EagerElections {
        EagerElections { since }
    }

    /// Returns true once the time for eager elections is over.
    pub fn are_over(&self) -> bool {
        self.since.elapsed() > EAGER_FOR
    }

    /// Requests the votes of the other replicas now.
    pub async fn request<M: Machine>(&self, raft: &Raft<M>) -> Result<(), Fatal<TypeConfig>> {
        raft.trigger().elect(true).await
    }
}

/// Writes the first membership of a group. Returns false if another replica already did, or Raft has stopped.
/// `name` is the group's name in the log line about it.
pub async fn found<M: Machine>(
    raft: &Raft<M>,
    members: BTreeMap<ReplicaId, RaftNode>,
    name: &str,
) -> bool {
    match raft.initialize(members).await {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(
                group = name,
                %error,
                "group was already initialized by another replica"
            );
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_founding_member_waits_longer_than_the_one_before_it() {
        let limits = Limits {
            election_timeout_ms: 500,
            ..Limits::default()
        };
        let waits = [0, 1, 2].map(|place| patience(&limits, place).as_millis());
        assert_eq!(waits, [0, 1_000, 2_000]);
        assert!(patience(&limits, usize::MAX) > EAGER_FOR);
    }

    #[tokio::test(start_paused = true)]
    async fn eager_elections_end() {
        let elections = EagerElections::new(Instant::now());
        tokio::time::advance(EAGER_FOR).await;
        assert!(!elections.are_over());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(elections.are_over());
    }
}
