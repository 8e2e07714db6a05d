//! Writes and reads of a consumer group coordinator in its partition's log.

use std::time::Duration;

use ropewalk_machines::consumer_group::Groups;
use ropewalk_proto::command::{Command, Reply};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::GroupId;
use ropewalk_proto::v1::{GroupCommand, GroupReply};
use tokio::sync::watch;

use super::Partition;
use super::produce::COMMIT_WITHIN;
use crate::raft::leadership::has_quorum;
use crate::raft::{self, Unanswered};

impl Partition {
    /// Returns the epoch in which this replica leads, if a majority has answered it lately. Without one,
    /// another replica may lead by now, and end sessions that are valid here.
    ///
    /// # Errors
    /// `NotLeader` and `NoLeader`.
    pub fn coordinates(&self) -> Result<u64, WireError> {
        let epoch = self.leading_epoch()?;
        let lately = Duration::from_millis(self.host.limits.node_dead_after_ms);
        match self.with_metrics(|metrics| has_quorum(metrics, lately)) {
            true => Ok(epoch),
            false => Err(self.error(
                ErrorCode::NoLeader,
                "its leader does not hear from a majority of its replicas; try again shortly",
            )),
        }
    }

    /// Subscribes to the epoch in which this replica leads.
    pub fn leads(&self) -> watch::Receiver<Option<u64>> {
        self.leads.subscribe()
    }

    /// Raft group of the partition's log.
    pub fn raft_group(&self) -> GroupId {
        self.id.group
    }

    /// Calls `look` with the groups as applied here.
    pub fn with_groups<R>(&self, look: impl FnOnce(&Groups) -> R) -> R {
        look(self.replica.view.machine().groups())
    }

    /// Returns when everything that any leader has answered so far is applied here.
    ///
    /// # Errors
    /// `NotLeader` and `NoLeader`.
    pub async fn groups_caught_up(&self) -> Result<(), WireError> {
        self.leading_epoch()?;
        self.catch_up().await
    }

    /// Proposes a command of a group, and returns its reply once a majority has it on disk.
    ///
    /// # Errors
    /// As for a batch of records.
    pub async fn propose_group(&self, command: GroupCommand) -> Result<GroupReply, WireError> {
        self.leading_epoch()?;
        self.check_disk()?;
        let command = Command::Group(command);
        let written = match raft::propose(&self.replica.raft, command, COMMIT_WITHIN).await {
            Ok(written) => written,
            Err(Unanswered::Late) => {
                return Err(self.error(
                    ErrorCode::Timeout,
                    "no majority confirmed the change in time, and it may still be made; try again",
                ));
            }
            Err(fate) => return Err(self.unanswered(fate)),
        };
        self.roll_if_full().await;
        match written.data {
            Reply::Group(reply) => Ok(reply),
            _ => Err(self.error(
                ErrorCode::Internal,
                "internal error: unexpected reply type to a group command",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::ids::NodeId;

    use super::super::test_cluster::{TestCluster, eventually, settings};

    #[tokio::test]
    async fn a_leader_that_a_majority_does_not_answer_coordinates_nothing() {
        let mut cluster = TestCluster::start(3, settings()).await;
        let leader = cluster.leader().await;
        eventually("a majority", || leader.coordinates().is_ok()).await;
        let others = [1, 2, 3].map(NodeId);
        for other in others.into_iter().filter(|id| *id != leader.host.node_id) {
            cluster.kill(other).await;
        }
        eventually("the end of it", || leader.coordinates().is_err()).await;
        assert!(leader.leading_epoch().is_ok(), "it does not know better");
        cluster.stop().await;
    }
}
