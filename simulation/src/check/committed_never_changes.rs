//! Committed entries never change: at every look, all replicas that know an index as committed hold the same
//! entry there.

use super::{Check, Now};

/// The check.
#[derive(Debug)]
pub struct CommittedNeverChanges;

impl Check for CommittedNeverChanges {
    fn name(&self) -> &'static str {
        "committed-never-changes"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for replica in &now.look.replicas {
            let (Some(group), Some(committed)) = (
                now.truth.group(replica.seen.group),
                replica.seen.committed_index(),
            ) else {
                continue;
            };
            for entry in &replica.seen.entries {
                let index = entry.place.index;
                if index > committed {
                    break;
                }
                let own = (entry.place.term, entry.digest);
                let known = group.committed.get(&index).copied();
                if known.is_some_and(|known| known != own) {
                    return Err(format!(
                        "{} says that the entry at index {index} is committed with (term, digest) {own:x?}, and it was known as {known:x?}",
                        replica.name()
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{Story, entry, place, replica};
    use crate::observe::Replica;

    fn two(one: Replica, other: Replica) -> Result<(), String> {
        let mut story = Story::default();
        story.look.replicas = vec![one, other];
        story.learn();
        story.look(&mut CommittedNeverChanges)
    }

    #[test]
    fn what_is_not_committed_may_differ() {
        let one = replica(1, |seen| {
            seen.entries = vec![entry(1, 0, 7), entry(1, 1, 8)];
            seen.committed = place(1, 0);
        });
        let other = replica(2, |seen| {
            seen.entries = vec![entry(1, 0, 7), entry(2, 1, 9)];
            seen.committed = place(2, 1);
        });
        assert_eq!(two(one, other), Ok(()));
    }

    #[test]
    fn two_that_are_committed_at_one_index_are_found() {
        let one = replica(1, |seen| {
            seen.entries = vec![entry(1, 0, 7)];
            seen.applied = place(1, 0);
        });
        let other = replica(2, |seen| {
            seen.entries = vec![entry(2, 0, 9)];
            seen.committed = place(2, 0);
        });
        assert!(two(one, other).is_err());
    }
}
