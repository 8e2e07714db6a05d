//! Log matching: two logs with an entry of the same index and term hold the same entry there, and the same
//! entries before it.
//!
//! The check compares each entry and the term of the one before it. That is enough, since the entries before
//! that one were compared in their own turn.

use std::collections::BTreeMap;

use ropewalk_proto::ids::GroupId;
use ropewalk_raft_store::inspect::Digest;

use super::{Check, Now};

/// The check.
#[derive(Debug, Default)]
pub struct LogMatching {
    /// By group, index and term: the digest, and the term of the entry before it if that was seen.
    entries: BTreeMap<(GroupId, u64, u64), (Digest, Option<u64>)>,
}

impl Check for LogMatching {
    fn name(&self) -> &'static str {
        "log-matching"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for replica in &now.look.replicas {
            let mut before = replica.seen.purged;
            for entry in &replica.seen.entries {
                let place = entry.place;
                let term_before = before
                    .filter(|before| before.index + 1 == place.index)
                    .map(|before| before.term);
                before = Some(place);
                let key = (replica.seen.group, place.index, place.term);
                let known = self
                    .entries
                    .entry(key)
                    .or_insert((entry.digest, term_before));
                if known.1.is_none() {
                    known.1 = term_before;
                }
                let same_before = term_before.is_none() || term_before == known.1;
                if known.0 != entry.digest || !same_before {
                    return Err(format!(
                        "{}: the entry at index {} of term {} has digest {:08x} after one of term {term_before:?}; elsewhere it has {:08x} after {:?}",
                        replica.name(),
                        place.index,
                        place.term,
                        entry.digest,
                        known.0,
                        known.1
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
    use crate::check::fixtures::{Story, blank, entry, replica};

    #[test]
    fn logs_that_differ_in_term_or_end_match() {
        let mut story = Story::default();
        story.look.replicas = vec![
            replica(1, |seen| seen.entries = vec![blank(1, 1), entry(1, 2, 7)]),
            replica(2, |seen| seen.entries = vec![blank(1, 1)]),
            replica(3, |seen| seen.entries = vec![blank(1, 1), entry(2, 2, 9)]),
        ];
        assert_eq!(story.look(&mut LogMatching::default()), Ok(()));
    }

    #[test]
    fn another_entry_of_the_same_place_does_not_match() {
        let mut story = Story::default();
        story.look.replicas = vec![
            replica(1, |seen| seen.entries = vec![entry(1, 2, 7)]),
            replica(2, |seen| seen.entries = vec![entry(1, 2, 9)]),
        ];
        assert!(story.look(&mut LogMatching::default()).is_err());
    }

    #[test]
    fn the_same_entry_behind_another_does_not_match() {
        let mut story = Story::default();
        story.look.replicas = vec![
            replica(1, |seen| seen.entries = vec![blank(1, 1), entry(3, 2, 7)]),
            replica(2, |seen| seen.entries = vec![blank(2, 1), entry(3, 2, 7)]),
        ];
        assert!(story.look(&mut LogMatching::default()).is_err());
    }
}
