//! A partition has one owner at a time. For each group and partition the epochs of accepted commits only
//! rise, and all commits of one epoch come from one member. Every coordinator's group state matches its log.

use std::collections::BTreeMap;

use super::replay::Replay;
use super::{Check, Now};
use crate::observe::Image;

/// The check.
#[derive(Debug, Default)]
pub struct OneOwnerAtATime {
    replay: Replay,
    /// Epoch and member of the last commit, by group, topic id and partition.
    owners: BTreeMap<(String, u64, u32), (u64, String)>,
}

impl Check for OneOwnerAtATime {
    fn name(&self) -> &'static str {
        "one-owner-at-a-time"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for one in now.fresh {
            for commit in self.replay.take(one) {
                let (topic_id, partition) = commit.at;
                let key = (commit.group.clone(), topic_id, partition);
                let owner = (commit.epoch, commit.member_id.clone());
                let before = self.owners.insert(key, owner.clone());
                let Some(before) = before.filter(|before| *before != owner) else {
                    continue;
                };
                if before.0 >= owner.0 {
                    return Err(format!(
                        "group {}, log index {}: {commit:?} was accepted after a commit of (epoch, member) {before:?}",
                        one.group, one.entry.place.index
                    ));
                }
            }
        }
        for replica in now.look.of(Image::Live) {
            let (Some(state), Some(applied)) = (&replica.state, replica.seen.applied) else {
                continue;
            };
            let expected = self.replay.after(replica.seen.group, applied.index);
            if let Some(expected) = expected.filter(|expected| **expected != state.groups) {
                return Err(format!(
                    "{}: after log index {} it has of its groups {:?}, and by the log they are {expected:?}",
                    replica.name(),
                    applied.index,
                    state.groups
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::groups::{commit, join, released};
    use crate::check::fixtures::{Story, place, replica, state};
    use crate::observe::committed_model::Committed;

    fn judge(fresh: Vec<Committed>) -> Result<(), String> {
        let story = Story {
            fresh,
            ..Story::default()
        };
        story.look(&mut OneOwnerAtATime::default())
    }

    #[test]
    fn owners_that_follow_each_other_pass_and_what_was_refused_does_not_count() {
        let told = vec![
            join(1, "a"),
            commit(2, "a", 1, 5),
            join(3, "b"),
            commit(4, "b", 2, 6),
            released(5, "a", 1),
            commit(6, "b", 2, 7),
            commit(7, "a", 1, 9),
        ];
        assert_eq!(judge(told), Ok(()));
    }

    #[test]
    fn a_commit_of_an_epoch_that_is_over_is_found() {
        let mut check = OneOwnerAtATime::default();
        let key = ("group-0".to_owned(), 1, 0);
        check.owners.insert(key, (7, "b".to_owned()));
        let story = Story {
            fresh: vec![join(1, "a"), commit(2, "a", 1, 5)],
            ..Story::default()
        };
        assert!(story.look(&mut check).is_err());
    }

    #[test]
    fn a_coordinator_that_has_something_else_than_its_log_says_is_found() {
        let mut story = Story {
            fresh: vec![join(1, "a")],
            ..Story::default()
        };
        let mut one = replica(1, |seen| seen.applied = place(1, 1));
        one.state = Some(state(0));
        story.look.replicas = vec![one];
        assert!(story.look(&mut OneOwnerAtATime::default()).is_err());
        story.fresh = Vec::new();
        assert_eq!(story.look(&mut OneOwnerAtATime::default()), Ok(()));
    }
}
