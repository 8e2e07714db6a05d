//! Leadership of a group, as one replica sees it, and its transfer. openraft elects the leader; see `config`.

use std::time::Duration;

use openraft::errors::Fatal;
use openraft::{Instant as _, RaftMetrics};
use ropewalk_machines::Machine;
use ropewalk_proto::ids::ReplicaId;
use ropewalk_raft_store::{Raft, RaftNode, TypeConfig};

/// Returns the leader of the group and its node, as far as this replica knows.
pub fn leader(metrics: &RaftMetrics<TypeConfig>) -> Option<(ReplicaId, RaftNode)> {
    let leader = metrics.current_leader?;
    let membership = metrics.membership_config.membership();
    Some((leader, membership.get_node(&leader)?.clone()))
}

/// Returns true if a majority has answered this leader lately, without which it accepts no writes.
pub fn has_quorum(metrics: &RaftMetrics<TypeConfig>, lately: Duration) -> bool {
    let alone = metrics
        .membership_config
        .membership()
        .voter_ids()
        .eq([metrics.id]);
    alone
        || metrics
            .last_quorum_acked
            .is_some_and(|at| at.elapsed() < lately)
}

/// Returns true if the group has a leader, or gets one within a bound.
pub async fn is_led<M: Machine>(raft: &Raft<M>, within: Duration) -> bool {
    let led = |metrics: &RaftMetrics<TypeConfig>| metrics.current_leader.is_some();
    raft.wait(Some(within))
        .metrics(led, "a leader")
        .await
        .is_ok()
}

/// Asks another replica to take over the leadership. Returns once the request is made.
pub async fn offer<M: Machine>(raft: &Raft<M>, heir: ReplicaId) -> Result<(), Fatal<TypeConfig>> {
    raft.trigger().transfer_leader(heir).await
}

/// Waits until this replica no longer leads. Returns false if it still leads after a bound, or if its Raft has
/// stopped.
pub async fn has_left<M: Machine>(raft: &Raft<M>, within: Duration) -> bool {
    let left = |metrics: &RaftMetrics<TypeConfig>| !metrics.state.is_leader();
    let wait = raft.wait(Some(within));
    wait.metrics(left, "not to lead").await.is_ok()
}

/// Keeps a replica from starting an election or becoming the leader, from now on.
pub fn stand_down<M: Machine>(raft: &Raft<M>) {
    raft.runtime_config().elect(false);
}
