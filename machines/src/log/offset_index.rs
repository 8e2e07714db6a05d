//! The log entry of an offset: a sparse index, and the refused appends, which have no offset. `machine` assigns
//! the offsets.

use std::collections::{BTreeSet, VecDeque};

use super::keys::{Key, OffsetIndexEntry, StateWrites, damaged};
use crate::machine::MachineError;

/// Maximum bytes of log between two points of the index.
const POINT_EVERY_BYTES: u64 = 64 << 10;
/// Maximum entries between two points, and so the most that a reader scans to find an offset.
const POINT_EVERY_ENTRIES: u64 = 256;

/// Start of a scan: the entry at `log_index` has the batch that begins at `base_offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanStart {
    /// Log index of the entry.
    pub log_index: u64,
    /// Offset of its first record.
    pub base_offset: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Offsets {
    points: VecDeque<OffsetIndexEntry>,
    refused: BTreeSet<u64>,
}

impl Offsets {
    /// Records an accepted append, described by `point`. The first append behind a segment boundary always
    /// becomes a point of the index, so that one is left when the segments before it are gone.
    pub(super) fn accepted(
        &mut self,
        point: OffsetIndexEntry,
        last_boundary: u64,
        effects: &mut StateWrites,
    ) {
        let due = self.points.back().is_none_or(|last| {
            last.log_index <= last_boundary
                || point.log_index - last.log_index >= POINT_EVERY_ENTRIES
                || point.log_bytes - last.log_bytes >= POINT_EVERY_BYTES
        });
        assert!(
            self.follows(&point),
            "{point:?} does not follow the last one"
        );
        if due {
            effects.put(Key::OffsetIndexEntry(point.log_index), &point);
            self.points.push_back(point);
        }
    }

    /// Records an append that got no offset.
    pub(super) fn refused(&mut self, log_index: u64, effects: &mut StateWrites) {
        effects.mark(Key::Refused(log_index));
        self.refused.insert(log_index);
    }

    pub(super) fn is_refused(&self, log_index: u64) -> bool {
        self.refused.contains(&log_index)
    }

    /// Returns the last point at or before `offset`.
    pub(super) fn before(&self, offset: u64) -> Option<ScanStart> {
        let behind = self
            .points
            .partition_point(|point| point.base_offset <= offset);
        self.start(behind.checked_sub(1)?)
    }

    /// Returns the last point before which all records are earlier than `time_ms`.
    pub(super) fn before_time(&self, time_ms: i64) -> Option<ScanStart> {
        let behind = self.points.partition_point(|point| {
            point
                .max_timestamp_before_ms
                .is_none_or(|latest| latest < time_ms)
        });
        self.start(behind.saturating_sub(1))
    }

    fn start(&self, position: usize) -> Option<ScanStart> {
        let point = self.points.get(position)?;
        Some(ScanStart {
            log_index: point.log_index,
            base_offset: point.base_offset,
        })
    }

    /// Drops everything at or below `log_index`.
    pub(super) fn forget(&mut self, log_index: u64, effects: &mut StateWrites) {
        let gone = self
            .points
            .partition_point(|point| point.log_index <= log_index);
        for point in self.points.drain(..gone) {
            effects.remove(Key::OffsetIndexEntry(point.log_index));
        }
        let kept = self.refused.split_off(&log_index.saturating_add(1));
        for gone in std::mem::replace(&mut self.refused, kept) {
            effects.remove(Key::Refused(gone));
        }
    }

    pub(super) fn load_point(&mut self, point: OffsetIndexEntry) -> Result<(), MachineError> {
        if !self.follows(&point) {
            return Err(damaged(format!("{point:?} does not follow the last one")));
        }
        self.points.push_back(point);
        Ok(())
    }

    fn follows(&self, next: &OffsetIndexEntry) -> bool {
        self.points.back().is_none_or(|last| {
            last.log_index < next.log_index
                && last.base_offset < next.base_offset
                && last.log_bytes < next.log_bytes
        })
    }

    pub(super) fn load_refused(&mut self, log_index: u64) {
        self.refused.insert(log_index);
    }
}
