//! The desired membership of the metadata group: every node of the cluster, at most [`MAX_VOTERS`] of them as
//! voters. Pure: it returns one step at a time.

use std::collections::{BTreeMap, BTreeSet};

use ropewalk_machines::meta::view::{MetadataImage, NodeImage};
use ropewalk_proto::ids::{NodeId, ReplicaId};
use ropewalk_proto::v1::NodeState;
use ropewalk_raft_store::RaftNode;

use crate::raft::{ReplicationStatus, Step};

/// Maximum number of voters of the metadata group. The other replicas are learners.
pub(super) const MAX_VOTERS: usize = 5;

/// The membership as Raft has it.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub brokers: BTreeMap<ReplicaId, RaftNode>,
    pub voters: BTreeSet<ReplicaId>,
    /// True while the membership is joint: a change of voters has begun and not ended.
    pub joint: bool,
    /// Replicas whose log has caught up with the leader's.
    pub caught_up: BTreeSet<ReplicaId>,
}

impl Members {
    /// The members of a Raft group. In a joint membership, the voters are those of the newer configuration.
    pub fn of(group: ReplicationStatus) -> Members {
        Members {
            brokers: group.members,
            joint: group.half_way_to.is_some(),
            voters: group.half_way_to.unwrap_or(group.voters),
            caught_up: group.in_sync,
        }
    }

    /// The next step, if there is one. Nodes that are `lost` or decommissioning lose their vote if another
    /// node can have it.
    pub fn next(&self, view: &MetadataImage, lost: &BTreeSet<NodeId>) -> Option<Step> {
        let staying = || {
            let nodes = view.nodes.values();
            nodes.filter(|node| node.state != NodeState::Removed)
        };
        let voters = self.voters(staying(), lost);
        if self.joint {
            return Some(Step::SetVoters(voters));
        }
        for node in staying() {
            let wanted = RaftNode {
                node_id: node.id,
                address: node.address.clone(),
            };
            match self.brokers.get(&node.meta_replica) {
                None => return Some(Step::AddLearner(node.meta_replica, wanted)),
                Some(known) if *known != wanted => {
                    return Some(Step::MoveMember(node.meta_replica, wanted));
                }
                Some(_) => {}
            }
        }
        if voters != self.voters {
            return Some(Step::SetVoters(voters));
        }
        let replicas: BTreeSet<ReplicaId> = staying().map(|node| node.meta_replica).collect();
        let learners = self.brokers.keys().filter(|id| !self.voters.contains(id));
        let gone = learners.filter(|id| !replicas.contains(id));
        let gone: BTreeSet<ReplicaId> = gone.copied().collect();
        (!gone.is_empty()).then_some(Step::RemoveLearners(gone))
    }

    fn voters<'a>(
        &self,
        staying: impl Iterator<Item = &'a NodeImage>,
        lost: &BTreeSet<NodeId>,
    ) -> BTreeSet<ReplicaId> {
        let mut able: Vec<(bool, bool, NodeId, ReplicaId)> = staying
            .map(|node| {
                let leaving = node.state == NodeState::Decommissioning || lost.contains(&node.id);
                let votes = self.voters.contains(&node.meta_replica);
                (leaving, !votes, node.id, node.meta_replica)
            })
            .filter(|(_, new, _, replica)| !new || self.caught_up.contains(replica))
            .collect();
        able.sort_unstable();
        let chosen = able.iter().take(MAX_VOTERS);
        let chosen: BTreeSet<ReplicaId> = chosen.map(|(.., replica)| *replica).collect();
        if chosen.is_empty() {
            return self.voters.clone();
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(states: &[NodeState]) -> MetadataImage {
        let nodes = (1..).zip(states).map(|(id, state)| {
            let node = NodeImage {
                id: NodeId(id),
                address: format!("host{id}"),
                http: String::new(),
                external: String::new(),
                rack: String::new(),
                version: String::new(),
                state: *state,
                meta_replica: ReplicaId(100 + id),
            };
            (NodeId(id), node)
        });
        MetadataImage {
            nodes: nodes.collect(),
            ..MetadataImage::default()
        }
    }

    fn broker(id: u64) -> RaftNode {
        RaftNode {
            node_id: NodeId(id),
            address: format!("host{id}"),
        }
    }

    fn replicas(ids: &[u64]) -> BTreeSet<ReplicaId> {
        ids.iter().map(|id| ReplicaId(100 + id)).collect()
    }

    fn members(voters: &[u64], learners: &[u64], caught_up: &[u64]) -> Members {
        let all = voters.iter().chain(learners);
        Members {
            brokers: all.map(|id| (ReplicaId(100 + id), broker(*id))).collect(),
            voters: replicas(voters),
            joint: false,
            caught_up: replicas(caught_up),
        }
    }

    const ACTIVE: NodeState = NodeState::Active;
    const REMOVED: NodeState = NodeState::Removed;
    const LEAVING: NodeState = NodeState::Decommissioning;

    fn step(members: &Members, states: &[NodeState], lost: &[u64]) -> Option<Step> {
        let lost = lost.iter().map(|id| NodeId(*id)).collect();
        members.next(&view(states), &lost)
    }

    #[test]
    fn a_membership_that_is_as_it_should_be_stays() {
        let members = members(&[1, 2, 3], &[], &[1, 2, 3]);
        assert_eq!(step(&members, &[ACTIVE; 3], &[]), None);
        assert_eq!(step(&members, &[ACTIVE; 3], &[2]), None);
    }

    #[test]
    fn a_new_node_learns_first_and_votes_when_it_has_caught_up() {
        let unknown = members(&[1, 2, 3], &[], &[1, 2, 3]);
        let learn = Step::AddLearner(ReplicaId(104), broker(4));
        assert_eq!(step(&unknown, &[ACTIVE; 4], &[]), Some(learn));
        let behind = members(&[1, 2, 3], &[4], &[1, 2, 3]);
        assert_eq!(step(&behind, &[ACTIVE; 4], &[]), None);
        let ready = members(&[1, 2, 3], &[4], &[1, 2, 3, 4]);
        let vote = Step::SetVoters(replicas(&[1, 2, 3, 4]));
        assert_eq!(step(&ready, &[ACTIVE; 4], &[]), Some(vote));
    }

    #[test]
    fn at_most_five_vote() {
        let members = members(&[1, 2, 3, 4, 5], &[6], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(step(&members, &[ACTIVE; 6], &[]), None);
        let instead = Step::SetVoters(replicas(&[1, 3, 4, 5, 6]));
        assert_eq!(step(&members, &[ACTIVE; 6], &[2]), Some(instead));
    }

    #[test]
    fn a_lost_node_and_its_successor_change_places_in_one_step() {
        let members = members(&[1, 2, 3], &[4], &[1, 2, 4]);
        let states = [ACTIVE, ACTIVE, REMOVED, ACTIVE];
        let vote = Step::SetVoters(replicas(&[1, 2, 4]));
        assert_eq!(step(&members, &states, &[]), Some(vote));
    }

    #[test]
    fn a_lost_voter_goes_even_before_its_successor_has_caught_up() {
        let members = members(&[1, 2, 3], &[4], &[1, 2]);
        let states = [ACTIVE, ACTIVE, REMOVED, ACTIVE];
        let vote = Step::SetVoters(replicas(&[1, 2]));
        assert_eq!(step(&members, &states, &[]), Some(vote));
    }

    #[test]
    fn a_removed_learner_is_dropped() {
        let members = members(&[1], &[2], &[1]);
        let states = [ACTIVE, REMOVED];
        assert_eq!(
            step(&members, &states, &[]),
            Some(Step::RemoveLearners(replicas(&[2])))
        );
    }

    #[test]
    fn a_node_that_moved_is_found_again() {
        let mut members = members(&[1, 2], &[], &[1, 2]);
        let stale = RaftNode {
            node_id: NodeId(2),
            address: "elsewhere".into(),
        };
        members.brokers.insert(ReplicaId(102), stale);
        let readdress = Step::MoveMember(ReplicaId(102), broker(2));
        assert_eq!(step(&members, &[ACTIVE; 2], &[]), Some(readdress));
    }

    #[test]
    fn a_change_that_was_begun_is_ended_first() {
        let mut members = members(&[1, 2, 3], &[], &[1, 2, 3]);
        members.joint = true;
        let vote = Step::SetVoters(replicas(&[1, 2, 3]));
        assert_eq!(step(&members, &[ACTIVE; 3], &[]), Some(vote));
    }

    #[test]
    fn the_last_one_keeps_its_vote_even_while_it_leaves() {
        let members = members(&[1], &[], &[1]);
        assert_eq!(step(&members, &[LEAVING], &[1]), None);
        assert_eq!(step(&members, &[REMOVED], &[]), None);
    }
}
