//! Next step from a partition's actual membership to the one that the metadata desires.
//!
//! Replicas to be removed need not be alive; replicas to be added must catch up before they vote.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ropewalk_proto::ids::ReplicaId;
use ropewalk_raft_store::RaftNode;

use super::Partition;
use crate::raft::{self, FormerVoters, NotTaken, ReplicationStatus, Step};

/// Maximum time of one membership step before the leader evaluates the state again.
const STEP_WITHIN: Duration = Duration::from_secs(10);

/// The leader's next action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Waits for a membership change in progress, or for a replica that is catching up.
    Wait,
    /// Changes the membership by one step.
    Take(Step),
    /// Transfers leadership away from this leader, which must be removed. The next leader then removes it.
    HandOver(ReplicaId),
    /// The group is as desired.
    Settled,
}

/// Returns the next step to bring `group` to `wish`.
pub(super) fn next_step(wish: &BTreeMap<ReplicaId, RaftNode>, group: &ReplicationStatus) -> Next {
    if !group.quiet || wish.is_empty() {
        return Next::Wait;
    }
    if let Some(voters) = &group.half_way_to {
        return Next::Take(Step::SetVoters(voters.clone()));
    }
    for (replica, broker) in wish {
        match group.members.get(replica) {
            None if broker.address.is_empty() => return Next::Wait,
            None => return Next::Take(Step::AddLearner(*replica, broker.clone())),
            // A founding member has no address, and needs none. If the metadata has no address of a node, its
            // old address stays.
            Some(known)
                if !known.address.is_empty()
                    && !broker.address.is_empty()
                    && known.address != broker.address =>
            {
                return Next::Take(Step::MoveMember(*replica, broker.clone()));
            }
            Some(_) => {}
        }
    }
    // Before any wait for learners: a replica that was found damaged before it became a voter has a
    // successor, and never catches up.
    let strangers: BTreeSet<ReplicaId> = group
        .members
        .keys()
        .copied()
        .filter(|replica| !wish.contains_key(replica) && !group.voters.contains(replica))
        .collect();
    if !strangers.is_empty() {
        return Next::Take(Step::RemoveLearners(strangers));
    }
    let newcomers = wish
        .keys()
        .filter(|replica| !group.voters.contains(replica));
    if newcomers
        .clone()
        .any(|replica| !group.in_sync.contains(replica))
    {
        return Next::Wait;
    }
    // The leader stays a voter until another replica leads.
    let voters: BTreeSet<ReplicaId> = wish.keys().copied().chain([group.own]).collect();
    if group.voters != voters {
        return Next::Take(Step::SetVoters(voters));
    }
    if !wish.contains_key(&group.own) {
        let heir = wish.keys().find(|replica| group.could_lead(**replica));
        return heir.map_or(Next::Wait, |heir| Next::HandOver(*heir));
    }
    Next::Settled
}

impl Partition {
    /// Does what was derived for `group`; the leader retries a failed step at its next check.
    pub(super) async fn take(&self, next: Next, group: &ReplicationStatus) {
        let id = &self.id;
        let step = match next {
            Next::Wait | Next::Settled => return,
            Next::HandOver(heir) => {
                tracing::info!(partition = %id, %heir, "transferring leadership");
                if let Err(error) = self.hand_over(heir).await {
                    tracing::info!(partition = %id, %error, "leadership transfer failed");
                }
                return;
            }
            Next::Take(step) => step,
        };
        tracing::info!(partition = %id, ?step, "membership step");
        let former = FormerVoters::Leave;
        match raft::take_step(&self.replica.raft, step, group.since, former, STEP_WITHIN).await {
            Ok(()) => {}
            Err(NotTaken::Late) => {
                tracing::info!(partition = %id, "membership change is still in progress");
            }
            Err(error) => tracing::info!(
                partition = %id,
                %error,
                "membership change failed; retrying"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::ids::NodeId;

    use super::*;

    fn broker(replica: u64) -> RaftNode {
        RaftNode {
            node_id: NodeId(replica % 10),
            address: format!("node{}:1", replica % 10),
        }
    }

    fn wish(replicas: &[u64]) -> BTreeMap<ReplicaId, RaftNode> {
        replicas
            .iter()
            .map(|&replica| (ReplicaId(replica), broker(replica)))
            .collect()
    }

    fn group(own: u64, voters: &[u64]) -> ReplicationStatus {
        ReplicationStatus {
            own: ReplicaId(own),
            voters: voters.iter().copied().map(ReplicaId).collect(),
            settled: voters.iter().copied().map(ReplicaId).collect(),
            members: wish(voters),
            since: None,
            quiet: true,
            half_way_to: None,
            in_sync: voters.iter().copied().map(ReplicaId).collect(),
        }
    }

    /// Applies a step as Raft would; new replicas catch up unless they are dead.
    fn take(next: &Next, group: &mut ReplicationStatus, dead: &[u64]) {
        match next {
            Next::Take(Step::AddLearner(replica, broker) | Step::MoveMember(replica, broker)) => {
                group.members.insert(*replica, broker.clone());
                if !dead.contains(&replica.0) {
                    group.in_sync.insert(*replica);
                }
            }
            Next::Take(Step::SetVoters(voters)) => {
                let gone: Vec<_> = group.voters.difference(voters).copied().collect();
                gone.iter()
                    .for_each(|replica| drop(group.members.remove(replica)));
                group.voters = voters.clone();
                group.half_way_to = None;
            }
            Next::HandOver(heir) => group.own = *heir,
            Next::Take(Step::RemoveLearners(replicas)) => {
                assert!(replicas.is_disjoint(&group.voters));
                group
                    .members
                    .retain(|replica, _| !replicas.contains(replica));
            }
            Next::Wait | Next::Settled => {}
        }
        let members = &group.members;
        group
            .in_sync
            .retain(|replica| members.contains_key(replica));
    }

    fn steps_to_rest(
        wish: &BTreeMap<ReplicaId, RaftNode>,
        group: &mut ReplicationStatus,
        dead: &[u64],
    ) -> Next {
        for _ in 0..20 {
            let next = next_step(wish, group);
            if matches!(next, Next::Wait | Next::Settled) {
                return next;
            }
            take(&next, group, dead);
        }
        panic!("no end in sight: {group:?}");
    }

    #[test]
    fn a_lost_replica_is_replaced_though_it_never_answers() {
        let mut group = group(1, &[1, 2, 3]);
        group.in_sync.remove(&ReplicaId(3));
        let wish = wish(&[1, 2, 14]);
        assert_eq!(steps_to_rest(&wish, &mut group, &[]), Next::Settled);
        assert_eq!(
            (group.voters, group.members),
            (wish.keys().copied().collect(), wish)
        );
    }

    #[test]
    fn a_leader_that_is_to_go_hands_over_before_it_is_removed() {
        let mut group = group(1, &[1, 2, 3]);
        let wish = wish(&[12, 13, 14]);
        assert_eq!(steps_to_rest(&wish, &mut group, &[]), Next::Settled);
        assert!(wish.contains_key(&group.own));
        assert_eq!(group.members, wish);
    }

    #[test]
    fn a_newcomer_that_has_not_caught_up_does_not_vote() {
        let mut group = group(1, &[1, 2, 3]);
        assert_eq!(
            steps_to_rest(&wish(&[1, 2, 14]), &mut group, &[14]),
            Next::Wait
        );
        assert_eq!(group.voters.len(), 3);
        assert!(!group.voters.contains(&ReplicaId(14)));
    }

    #[test]
    fn a_wish_that_changes_half_way_leaves_nothing_behind() {
        let mut group = group(1, &[1, 2, 3]);
        take(&next_step(&wish(&[1, 2, 14]), &group), &mut group, &[14]);
        let wish = wish(&[1, 2, 15]);
        assert_eq!(steps_to_rest(&wish, &mut group, &[14]), Next::Settled);
        assert_eq!(group.members, wish);
    }

    #[test]
    fn newcomers_that_were_given_up_are_let_go_though_the_next_one_does_not_answer_either() {
        let mut group = group(1, &[1, 2, 3]);
        for newcomer in [14, 15] {
            let wish = wish(&[1, 2, newcomer]);
            let rest = steps_to_rest(&wish, &mut group, &[14, 15]);
            assert_eq!(rest, Next::Wait);
        }
        assert_eq!(group.members, wish(&[1, 2, 3, 15]));
    }

    #[test]
    fn a_change_left_half_way_is_finished_first() {
        let mut group = group(2, &[1, 2, 3, 14]);
        group.half_way_to = Some([1, 2, 14].map(ReplicaId).into());
        let wish = wish(&[1, 2, 14]);
        assert_eq!(steps_to_rest(&wish, &mut group, &[]), Next::Settled);
        assert_eq!(group.members, wish);
    }

    #[test]
    fn a_node_that_moved_is_found_at_its_new_address() {
        let mut group = group(1, &[1, 2, 3]);
        let mut wish = wish(&[1, 2, 3]);
        let moved = RaftNode {
            node_id: NodeId(2),
            address: "elsewhere:1".into(),
        };
        wish.insert(ReplicaId(2), moved.clone());
        assert_eq!(
            next_step(&wish, &group),
            Next::Take(Step::MoveMember(ReplicaId(2), moved))
        );
        assert_eq!(steps_to_rest(&wish, &mut group, &[]), Next::Settled);
    }

    #[test]
    fn a_founding_member_is_left_without_an_address() {
        let mut group = group(1, &[1, 2, 3]);
        for broker in group.members.values_mut() {
            broker.address.clear();
        }
        assert_eq!(next_step(&wish(&[1, 2, 3]), &group), Next::Settled);
    }
}
