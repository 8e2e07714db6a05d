//! Where the log may be cut: the ends of its segments. Where a segment ends is decided by the
//! leader and written in the log, never by a setting read here, so it is the same everywhere.

use std::collections::VecDeque;

use super::state::{Boundary, Effects, Key};

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Segments {
    boundaries: VecDeque<Boundary>,
}

impl Segments {
    /// Ends the segment under way.
    pub(super) fn end(&mut self, boundary: Boundary, effects: &mut Effects) {
        effects.put(Key::Boundary(boundary.end_index), &boundary);
        self.boundaries.push_back(boundary);
    }

    /// Takes out the boundaries at or below `log_start`; gives back the last of them.
    pub(super) fn forget(&mut self, log_start: u64, effects: &mut Effects) -> Option<Boundary> {
        let gone = self
            .boundaries
            .partition_point(|end| end.next_offset <= log_start);
        let gone = self.boundaries.drain(..gone);
        gone.inspect(|end| effects.remove(Key::Boundary(end.end_index)))
            .last()
    }

    pub(super) fn last(&self) -> Option<&Boundary> {
        self.boundaries.back()
    }

    /// The ends of the segments kept whole, the oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Boundary> {
        self.boundaries.iter()
    }

    pub(super) fn load(&mut self, boundary: Boundary) {
        self.boundaries.push_back(boundary);
    }
}
