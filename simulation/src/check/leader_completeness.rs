//! Leader completeness: a leader holds every entry that was committed in an earlier term.
//!
//! Only the last such entry is compared, since log matching covers the entries before it. Only the newest
//! leader is judged. A superseded leader may lack entries that were committed after its time, even those of
//! an earlier term. It may come back alone while its successors are down, so the check remembers the newest
//! term that had a leader.

use std::collections::BTreeMap;

use ropewalk_proto::ids::GroupId;

use super::{Check, Now};
use crate::observe::Image;

/// The check.
#[derive(Debug, Default)]
pub struct LeaderCompleteness {
    /// The newest term of each group that had a leader, in any look so far.
    led: BTreeMap<GroupId, u64>,
}

impl Check for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader-completeness"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        let mut newest: BTreeMap<GroupId, u64> = BTreeMap::new();
        for replica in &now.look.replicas {
            let term = newest.entry(replica.seen.group).or_default();
            *term = replica.seen.vote.map_or(0, |vote| vote.term).max(*term);
            if let Some(vote) = replica.seen.vote.filter(|vote| vote.committed) {
                let led = self.led.entry(replica.seen.group).or_default();
                *led = vote.term.max(*led);
            }
        }
        for replica in now.look.of(Image::Live) {
            let seen = &replica.seen;
            let won = seen.vote.filter(|vote| {
                vote.committed
                    && vote.candidate == seen.replica
                    && newest.get(&seen.group) == Some(&vote.term)
                    && self.led.get(&seen.group) == Some(&vote.term)
            });
            let won = won.filter(|_| seen.damaged.is_empty());
            let (Some(vote), Some(group)) = (won, now.truth.group(seen.group)) else {
                continue;
            };
            let earlier = group.committed.iter().rev();
            let mut earlier = earlier.filter(|(_, (term, _))| *term < vote.term);
            let Some((&index, &(term, digest))) = earlier.next() else {
                continue;
            };
            let purged = seen.purged.is_some_and(|purged| purged.index >= index);
            let read_again = seen.from_index <= index;
            let there = match read_again {
                true => seen.entries.iter().any(|entry| {
                    (entry.place.index, entry.place.term, entry.digest) == (index, term, digest)
                }),
                // The entry was seen before; the end of the log shows if it is still there.
                false => seen.last.is_some_and(|last| last.index >= index),
            };
            if !purged && !there {
                return Err(format!(
                    "{} leads in term {} and does not hold the entry at index {index} that was committed in term {term}; its log ends at {:?}",
                    replica.name(),
                    vote.term,
                    seen.last
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{Story, blank, entry, place, replica, vote};
    use crate::observe::Replica;

    fn judge(leader: Replica) -> Result<(), String> {
        let mut story = Story::default();
        story.look.replicas = vec![replica(2, |seen| {
            seen.entries = vec![blank(1, 0), entry(1, 1, 7)];
            seen.committed = place(1, 1);
        })];
        story.learn();
        story.look.replicas = vec![leader];
        story.look(&mut LeaderCompleteness::default())
    }

    #[test]
    fn a_leader_that_holds_or_has_purged_what_was_committed_passes() {
        let held = replica(1, |seen| {
            seen.vote = vote(2, 1, true);
            seen.entries = vec![blank(1, 0), entry(1, 1, 7)];
        });
        assert_eq!(judge(held), Ok(()));
        let purged = replica(1, |seen| {
            seen.vote = vote(2, 1, true);
            seen.purged = place(1, 1);
        });
        assert_eq!(judge(purged), Ok(()));
        let follower = replica(1, |seen| seen.vote = vote(2, 3, true));
        assert_eq!(judge(follower), Ok(()), "it does not lead");
    }

    #[test]
    fn a_leader_without_a_committed_entry_or_with_another_does_not() {
        let short = replica(1, |seen| {
            seen.vote = vote(2, 1, true);
            seen.entries = vec![blank(1, 0)];
        });
        assert!(judge(short).is_err());
        let other = replica(1, |seen| {
            seen.vote = vote(2, 1, true);
            seen.entries = vec![blank(1, 0), entry(2, 1, 9)];
        });
        assert!(judge(other).is_err());
    }

    /// Leader 1 of term 2 committed nothing. Leader 2 of term 3 committed an entry of term 1, and is down
    /// when leader 1 comes back.
    #[test]
    fn a_former_leader_that_comes_back_while_its_successor_is_down_is_not_the_newest() {
        let mut check = LeaderCompleteness::default();
        let mut story = Story::default();
        story.look.replicas = vec![replica(2, |seen| {
            seen.vote = vote(3, 2, true);
            seen.entries = vec![blank(1, 0), entry(1, 1, 7), blank(3, 2)];
            seen.committed = place(3, 2);
        })];
        story.learn();
        assert_eq!(story.look(&mut check), Ok(()));
        story.look.replicas = vec![replica(1, |seen| {
            seen.vote = vote(2, 1, true);
            seen.entries = vec![blank(1, 0), blank(2, 1)];
        })];
        assert_eq!(story.look(&mut check), Ok(()));
    }
}
