//! A replica's durable vote never goes back: not to an earlier term, not to another candidate of the same
//! term, not from won to open. A voter that forgets may vote twice. A replica that learns of a won term may
//! take over that winner as its vote, since the term is decided.

use std::collections::BTreeMap;

use ropewalk_proto::ids::ReplicaId;
use ropewalk_raft_store::inspect::CastVote;

use super::{Check, Now};
use crate::observe::Image;

/// The check.
#[derive(Debug, Default)]
pub struct VotesAreKept {
    /// Last vote of each replica, with the losses of its disk at that time.
    votes: BTreeMap<ReplicaId, (CastVote, u64)>,
}

impl Check for VotesAreKept {
    fn name(&self) -> &'static str {
        "votes-are-kept"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for replica in now.look.of(Image::Durable) {
            let (id, losses) = (replica.seen.replica, replica.losses);
            let before = self.votes.get(&id);
            let before = before
                .filter(|(_, at)| *at == losses)
                .map(|(vote, _)| *vote);
            let kept = match (before, replica.seen.vote) {
                (None, _) => true,
                (Some(_), None) => !replica.seen.damaged.is_empty(),
                (Some(before), Some(vote)) => follows(before, vote),
            };
            if !kept {
                return Err(format!(
                    "{} had voted {before:?}, and now has {:?}",
                    replica.name(),
                    replica.seen.vote
                ));
            }
            if let Some(vote) = replica.seen.vote {
                self.votes.insert(id, (vote, losses));
            }
        }
        Ok(())
    }
}

fn follows(before: CastVote, vote: CastVote) -> bool {
    let kept = vote.candidate == before.candidate && vote.committed >= before.committed;
    let decided = vote.committed && !before.committed;
    vote.term > before.term || vote.term == before.term && (kept || decided)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{Story, durable, replica, vote};

    fn judge(votes: [Option<CastVote>; 2], losses: u64) -> Result<(), String> {
        let mut check = VotesAreKept::default();
        let mut story = Story::default();
        for (vote, losses) in votes.into_iter().zip([0, losses]) {
            let mut one = durable(replica(1, |seen| seen.vote = vote));
            one.losses = losses;
            story.look.replicas = vec![one];
            story.look(&mut check)?;
        }
        Ok(())
    }

    #[test]
    fn votes_that_go_on_pass() {
        assert_eq!(judge([None, vote(1, 1, false)], 0), Ok(()));
        assert_eq!(judge([vote(1, 1, false), vote(1, 1, true)], 0), Ok(()));
        assert_eq!(judge([vote(1, 1, true), vote(2, 2, false)], 0), Ok(()));
        assert_eq!(judge([vote(1, 1, false), vote(1, 2, true)], 0), Ok(()));
        let lost = judge([vote(5, 1, true), vote(2, 2, false)], 1);
        assert_eq!(lost, Ok(()), "the disk was exchanged");
    }

    #[test]
    fn votes_that_go_back_do_not() {
        assert!(judge([vote(2, 1, false), vote(1, 1, false)], 0).is_err());
        assert!(judge([vote(2, 1, false), vote(2, 2, false)], 0).is_err());
        assert!(judge([vote(2, 1, true), vote(2, 1, false)], 0).is_err());
        assert!(judge([vote(2, 1, true), vote(2, 2, true)], 0).is_err());
        assert!(judge([vote(2, 1, true), None], 0).is_err());
    }
}
