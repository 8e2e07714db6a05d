//! The leader's view of its group: the members, the nodes they are on, and the replicas that have caught up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::{Instant, RaftMetrics};
use ropewalk_proto::ids::{NodeId, ReplicaId};
use ropewalk_raft_store::types::{LogId, StoredMembership};
use ropewalk_raft_store::{RaftNode, TypeConfig};

/// Log end at the last two samples. A follower is in sync if it answered lately and has everything that was
/// in the log one sample ago. Under load it always lags a little.
#[derive(Debug, Clone, Copy, Default)]
pub struct CatchUpBaseline {
    term: u64,
    before: u64,
    now: u64,
}

impl CatchUpBaseline {
    /// Takes a sample; must be called at even intervals.
    pub fn look(&mut self, term: u64, last_log_index: u64) {
        self.before = if self.term == term {
            self.now
        } else {
            last_log_index
        };
        (self.term, self.now) = (term, last_log_index);
    }

    /// Standard of a replica that answered within `answered_within`, and keeps this pace.
    pub fn caught_up(&self, answered_within: Duration) -> CaughtUp {
        CaughtUp {
            index: self.before,
            answered_within: Some(answered_within),
        }
    }
}

/// Standard by which a follower counts as caught up with its leader.
#[derive(Debug, Clone, Copy)]
pub struct CaughtUp {
    /// Index up to which it must have the leader's log.
    index: u64,
    /// Maximum age of its last answer, if that counts.
    answered_within: Option<Duration>,
}

impl CaughtUp {
    /// Standard of a replica that is at most `entries` behind the leader's log, however old its last answer is.
    pub fn within(entries: u64, metrics: &RaftMetrics<TypeConfig>) -> CaughtUp {
        CaughtUp {
            index: metrics
                .last_log_index
                .unwrap_or_default()
                .saturating_sub(entries),
            answered_within: None,
        }
    }

    fn is_met_by(&self, replica: ReplicaId, metrics: &RaftMetrics<TypeConfig>) -> bool {
        let has_answered = |within: Duration| {
            let all = metrics.heartbeat.as_ref();
            let at = all.and_then(|all| all.get(&replica).copied().flatten());
            at.is_some_and(|at| at.elapsed() < within)
        };
        let all = metrics.replication.as_ref();
        let matched = all.and_then(|all| all.get(&replica).copied().flatten());
        matched.is_some_and(|matched| matched.index() >= self.index)
            && self.answered_within.is_none_or(has_answered)
    }
}

/// The group as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationStatus {
    /// This replica, the leader.
    pub own: ReplicaId,
    /// Voters; during a change, those of both configurations.
    pub voters: BTreeSet<ReplicaId>,
    /// Voters whose vote counts whichever membership prevails: they are in every configuration of the
    /// membership in force and of the last committed one.
    pub settled: BTreeSet<ReplicaId>,
    /// Voters and learners, with their nodes.
    pub members: BTreeMap<ReplicaId, RaftNode>,
    /// Entry of the membership in force.
    pub since: Option<LogId>,
    /// True if no membership change is in progress.
    pub quiet: bool,
    /// Target voters of an unfinished joint change.
    pub half_way_to: Option<BTreeSet<ReplicaId>>,
    /// Replicas that have caught up, including the leader.
    pub in_sync: BTreeSet<ReplicaId>,
}

impl ReplicationStatus {
    /// The group as a replica sees it; complete only on the leader.
    pub fn see(metrics: &RaftMetrics<TypeConfig>, caught_up: CaughtUp) -> ReplicationStatus {
        let membership = metrics.membership_config.membership();
        let members: BTreeMap<ReplicaId, RaftNode> = membership
            .nodes()
            .map(|(replica, broker)| (*replica, broker.clone()))
            .collect();
        let keeps_up =
            |replica: &ReplicaId| *replica == metrics.id || caught_up.is_met_by(*replica, metrics);
        let configurations = membership.get_joint_config();
        let half_way_to = configurations.last().filter(|_| configurations.len() > 1);
        ReplicationStatus {
            own: metrics.id,
            voters: membership.voter_ids().collect(),
            settled: settled(
                &metrics.membership_config,
                &metrics.committed_membership_config,
            ),
            in_sync: members.keys().copied().filter(keeps_up).collect(),
            members,
            since: *metrics.membership_config.log_id(),
            quiet: metrics.membership_config == metrics.committed_membership_config,
            half_way_to: half_way_to.cloned(),
        }
    }

    /// Returns the nodes of the voters that keep up. During a change of voters, it counts only those in every
    /// configuration. A new voter has no vote yet that would help, and a leaving one may be gone in a moment.
    /// With either counted, the group would look healthy when one more loss would cost the majority.
    pub fn in_sync_nodes(&self) -> Vec<NodeId> {
        let voters = self
            .in_sync
            .iter()
            .filter(|replica| self.settled.contains(replica));
        voters
            .filter_map(|replica| self.members.get(replica))
            .map(|broker| broker.node_id)
            .collect()
    }

    /// Returns true if a replica could lead at once.
    pub fn could_lead(&self, replica: ReplicaId) -> bool {
        self.voters.contains(&replica) && self.in_sync.contains(&replica)
    }
}

fn settled(in_force: &StoredMembership, committed: &StoredMembership) -> BTreeSet<ReplicaId> {
    let configurations = [in_force, committed].map(|one| one.membership().get_joint_config());
    in_force
        .voter_ids()
        .filter(|replica| {
            let mut all = configurations.into_iter().flatten();
            all.all(|voters| voters.contains(replica))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use openraft::Membership;

    use super::*;

    fn membership(configurations: &[&[u64]]) -> StoredMembership {
        let voters = |ids: &&[u64]| ids.iter().copied().map(ReplicaId).collect();
        let all = configurations.iter().copied().flatten();
        let nodes: BTreeMap<ReplicaId, RaftNode> =
            all.map(|id| (ReplicaId(*id), broker(*id))).collect();
        let configurations = configurations.iter().map(voters).collect();
        let membership = Membership::new(configurations, nodes).expect("a membership");
        StoredMembership::new(None, membership)
    }

    fn broker(id: u64) -> RaftNode {
        RaftNode {
            node_id: NodeId(id),
            address: String::new(),
        }
    }

    /// Returns the in-sync nodes of a group whose members all keep up, during a change of voters or not.
    fn in_sync(in_force: &[&[u64]], committed: &[&[u64]]) -> Vec<u64> {
        let (in_force, committed) = (membership(in_force), membership(committed));
        let members = in_force.nodes().map(|(id, broker)| (*id, broker.clone()));
        let group = ReplicationStatus {
            own: ReplicaId(1),
            voters: in_force.voter_ids().collect(),
            settled: settled(&in_force, &committed),
            in_sync: in_force.nodes().map(|(id, _)| *id).collect(),
            members: members.collect(),
            since: *in_force.log_id(),
            quiet: in_force == committed,
            half_way_to: None,
        };
        let nodes = group.in_sync_nodes().into_iter();
        nodes.map(|node| node.0).collect()
    }

    #[test]
    fn a_follower_meets_a_standard_by_its_log_and_by_its_last_answer() {
        let mut metrics = RaftMetrics::<TypeConfig>::new_initial(ReplicaId(1));
        metrics.last_log_index = Some(100);
        let matched = |index| Some(LogId::new_term_index(1, index));
        metrics.replication = Some(BTreeMap::from([
            (ReplicaId(2), matched(35)),
            (ReplicaId(3), matched(36)),
            (ReplicaId(4), None),
        ]));
        let met =
            |standard: CaughtUp| [2, 3, 4, 5].map(|id| standard.is_met_by(ReplicaId(id), &metrics));
        let near = CaughtUp::within(64, &metrics);
        assert_eq!(met(near), [false, true, false, false]);
        // No follower has answered.
        let pace = CatchUpBaseline::default();
        assert_eq!(met(pace.caught_up(Duration::MAX)), [false; 4]);
    }

    /// Three replicas keep up at each moment, one of them without a vote that would help. Replica 3 is dead.
    #[test]
    fn a_group_in_the_middle_of_a_change_is_not_whole() {
        let (old, new): (&[u64], &[u64]) = (&[1, 2, 3], &[1, 2, 4]);
        assert_eq!(in_sync(&[old, new], &[old]), [1, 2]);
        assert_eq!(in_sync(&[old, new], &[old, new]), [1, 2]);
        assert_eq!(in_sync(&[new], &[old, new]), [1, 2]);
        assert_eq!(in_sync(&[new], &[new]), [1, 2, 4]);
    }
}
