//! The ends of segments, at which the log may be cut. The leader decides where a segment ends and writes that
//! into the log. No setting is read here, so the ends are the same on every replica.

use std::collections::VecDeque;

use super::keys::{Key, SegmentEnd, StateWrites, damaged};
use crate::machine::MachineError;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Segments {
    boundaries: VecDeque<SegmentEnd>,
}

impl Segments {
    /// Ends the active segment.
    pub(super) fn end(&mut self, boundary: SegmentEnd, effects: &mut StateWrites) {
        assert!(
            self.follows(&boundary),
            "{boundary:?} does not follow the last one"
        );
        effects.put(Key::SegmentEnd(boundary.end_index), &boundary);
        self.boundaries.push_back(boundary);
    }

    /// Removes the boundaries at or below `log_start`; returns the last of them.
    pub(super) fn forget(
        &mut self,
        log_start: u64,
        effects: &mut StateWrites,
    ) -> Option<SegmentEnd> {
        let gone = self
            .boundaries
            .partition_point(|end| end.next_offset <= log_start);
        let gone = self.boundaries.drain(..gone);
        gone.inspect(|end| effects.remove(Key::SegmentEnd(end.end_index)))
            .last()
    }

    pub(super) fn last(&self) -> Option<&SegmentEnd> {
        self.boundaries.back()
    }

    /// Ends of the kept segments, the oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &SegmentEnd> {
        self.boundaries.iter()
    }

    pub(super) fn load(&mut self, boundary: SegmentEnd) -> Result<(), MachineError> {
        if !self.follows(&boundary) {
            return Err(damaged(format!(
                "{boundary:?} does not follow the last one"
            )));
        }
        self.boundaries.push_back(boundary);
        Ok(())
    }

    fn follows(&self, next: &SegmentEnd) -> bool {
        self.boundaries.back().is_none_or(|last| {
            last.end_index < next.end_index
                && last.next_offset <= next.next_offset
                && last.log_bytes <= next.log_bytes
        })
    }
}
