//! At most one replica leads a group in a term.

use std::collections::BTreeMap;

use ropewalk_proto::ids::{GroupId, ReplicaId};

use super::{Check, Now};

/// The check.
#[derive(Debug, Default)]
pub struct ElectionSafety {
    /// Leader of each term, and the name of the replica that was first seen to hold its vote.
    leaders: BTreeMap<(GroupId, u64), (ReplicaId, String)>,
}

impl Check for ElectionSafety {
    fn name(&self) -> &'static str {
        "election-safety"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for replica in &now.look.replicas {
            let Some(vote) = replica.seen.vote.filter(|vote| vote.committed) else {
                continue;
            };
            let term = (replica.seen.group, vote.term);
            let first = self.leaders.entry(term);
            let (leader, witness) = first.or_insert_with(|| (vote.candidate, replica.name()));
            if *leader != vote.candidate {
                return Err(format!(
                    "group {}, term {}: {} knows {} as the leader, and {witness} knew {leader}",
                    term.0,
                    vote.term,
                    replica.name(),
                    vote.candidate
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{Story, replica, vote};

    #[test]
    fn one_leader_a_term_passes_and_a_candidate_is_no_leader() {
        let mut story = Story::default();
        story.look.replicas = vec![
            replica(1, |seen| seen.vote = vote(3, 1, true)),
            replica(2, |seen| seen.vote = vote(3, 1, true)),
            replica(3, |seen| seen.vote = vote(3, 3, false)),
            replica(4, |seen| seen.vote = vote(4, 3, true)),
        ];
        assert_eq!(story.look(&mut ElectionSafety::default()), Ok(()));
    }

    #[test]
    fn two_leaders_of_a_term_are_found_even_if_seen_at_different_times() {
        let mut check = ElectionSafety::default();
        let mut story = Story::default();
        story.look.replicas = vec![replica(1, |seen| seen.vote = vote(3, 1, true))];
        assert_eq!(story.look(&mut check), Ok(()));
        story.look.replicas = vec![replica(2, |seen| seen.vote = vote(3, 2, true))];
        assert!(story.look(&mut check).is_err());
    }
}
