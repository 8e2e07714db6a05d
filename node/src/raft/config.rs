//! The one configuration of all Raft groups of a node.

use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};

use crate::config::Limits;

/// Returns openraft's settings for one group; `name` shows in its logs.
///
/// A follower starts an election when it has received no heartbeat for the leader's lease plus a random
/// timeout. The lease is `election_timeout_ms`, and the timeout between half of that and all of it. So an
/// election comes 1.5 to 2 `election_timeout_ms` after the last heartbeat.
pub fn raft_config(limits: &Limits, name: &str) -> Arc<Config> {
    let heartbeat_ms = limits.heartbeat_ms.max(1);
    let timeout_min_ms = (limits.election_timeout_ms / 2).max(heartbeat_ms + 1);
    let timeout_max_ms = limits.election_timeout_ms.max(timeout_min_ms + 1);
    Arc::new(Config {
        cluster_name: name.to_owned(),
        heartbeat_interval: heartbeat_ms,
        election_timeout_min: timeout_min_ms,
        election_timeout_max: timeout_max_ms,
        install_snapshot_timeout: limits.peer_rpc_timeout_ms.saturating_mul(5),
        // The state machine takes checkpoints, at positions it chooses. Only retention purges logs.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // A node that was cut off must not depose a healthy leader when it comes back.
        enable_pre_vote: Some(true),
        // A restarted leader may have applied less than it acknowledged: it must be elected again.
        enable_leader_restore: Some(false),
        // A leader without a quorum stops its heartbeats, so that followers that still receive them can
        // elect.
        quorum_loss_probe_interval: Some(timeout_max_ms.saturating_mul(2)),
        log_stage_capacity: Some(1),
        ..Config::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_elect_within_two_timeouts() {
        let limits = Limits::default();
        let config = raft_config(&limits, "test");
        assert!(Config::clone(&config).validate().is_ok());
        assert_eq!(config.election_timeout_max, limits.election_timeout_ms);
    }

    #[test]
    fn strange_limits_still_give_a_valid_configuration() {
        for (heartbeat_ms, election_timeout_ms) in [(0, 0), (1, 1), (500, 100), (100, 101)] {
            let limits = Limits {
                heartbeat_ms,
                election_timeout_ms,
                ..Limits::default()
            };
            let config = raft_config(&limits, "test");
            assert!(Config::clone(&config).validate().is_ok());
        }
    }
}
