//! Progress of one partition's handlers. It holds offsets only; other parts decide how to use them.

use std::collections::BTreeSet;

use ropewalk_proto::planted_bug::{PlantedBug, is_planted};

/// The outstanding records of a partition, and the position to commit: the offset after the longest run of
/// records that are done.
///
/// Its size is the number of outstanding records, however far the others have advanced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// The next offset to hand out, past skipped records.
    next: u64,
    /// Outstanding records: handed out, and neither done nor dropped.
    out: BTreeSet<u64>,
    /// The first record that was dropped before it was done. It can never be done in this life.
    held: Option<u64>,
}

impl Progress {
    /// Progress without outstanding records; the next record to read is at `next`.
    pub fn new(next: u64) -> Progress {
        Progress {
            next,
            out: BTreeSet::new(),
            held: None,
        }
    }

    /// Records that a record was handed out.
    pub fn handed_out(&mut self, offset: u64) {
        assert!(offset >= self.next, "records are handed out in order");
        self.out.insert(offset);
        self.next = offset.saturating_add(1);
    }

    /// Records that there is nothing to hand out before this offset.
    pub fn skipped_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Records that the handler of a record has finished.
    pub fn done(&mut self, offset: u64) {
        self.out.remove(&offset);
    }

    /// Records that a delivery was dropped: its record will never be done.
    pub fn dropped(&mut self, offset: u64) {
        if self.out.remove(&offset) {
            let held = self.held.unwrap_or(offset);
            self.held = Some(held.min(offset));
        }
    }

    /// The offset at which to continue reading.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Number of outstanding records.
    pub fn outstanding(&self) -> usize {
        self.out.len()
    }

    /// The position to commit: offset of the first record that is not known to be done.
    pub fn position(&self) -> u64 {
        if is_planted(PlantedBug::PositionAhead) {
            return self.next;
        }
        let first_out = self.out.first().copied();
        let first = first_out.into_iter().chain(self.held).min();
        first.unwrap_or(self.next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_position_passes_a_record_only_when_all_before_it_are_done() {
        let mut progress = Progress::new(10);
        for offset in [10, 11, 14] {
            progress.handed_out(offset);
        }
        progress.done(11);
        assert_eq!(progress.position(), 10);
        progress.done(10);
        assert_eq!(progress.position(), 14, "nothing is left at 12 and 13");
        progress.done(14);
        assert_eq!((progress.position(), progress.outstanding()), (15, 0));
        progress.skipped_to(20);
        assert_eq!(progress.position(), 20);
    }

    #[test]
    fn a_dropped_record_holds_the_position_whatever_is_done_after_it() {
        let mut progress = Progress::new(0);
        for offset in 0..5 {
            progress.handed_out(offset);
        }
        progress.dropped(3);
        progress.dropped(1);
        for offset in [0, 2, 4] {
            progress.done(offset);
        }
        progress.skipped_to(100);
        assert_eq!((progress.position(), progress.outstanding()), (1, 0));
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Fate {
        Out,
        Done,
        Dropped,
    }

    proptest! {
        #[test]
        fn no_record_is_passed_that_is_not_done_and_none_is_kept_that_could_be_passed(
            gaps in prop::collection::vec(1u64..4, 1..40),
            fates in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..60),
        ) {
            let mut progress = Progress::new(0);
            let mut model = BTreeMap::new();
            let mut next = 0;
            for gap in gaps {
                next += gap;
                progress.handed_out(next);
                model.insert(next, Fate::Out);
            }
            let mut before = progress.position();
            for (which, done) in fates {
                let offset = *which.get(&model.keys().copied().collect::<Vec<_>>());
                let fate = model.get_mut(&offset).unwrap();
                if *fate == Fate::Out {
                    *fate = if done { Fate::Done } else { Fate::Dropped };
                }
                if done { progress.done(offset) } else { progress.dropped(offset) }
                let open = model.iter().find(|(_, fate)| **fate != Fate::Done);
                let expected = open.map_or(next + 1, |(offset, _)| *offset);
                prop_assert_eq!(progress.position(), expected);
                prop_assert!(progress.position() >= before, "it went back");
                before = progress.position();
            }
        }
    }
}
