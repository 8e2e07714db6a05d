//! Checkpoints: a state machine's whole state, and the membership, exactly as of a log index.
//!
//! openraft's snapshot is always a checkpoint, never the newest state. It is the newest checkpoint at or
//! below the index under which the machine never reads again. The log after it is still on this replica,
//! and a new replica streams it. A snapshot of the newest state would leave the new replica a silent hole
//! instead of the records it must serve.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::RaftSnapshotBuilder;
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use tokio::time::Instant;

use crate::committer::Durability;
use crate::disk::{Change, ChangeBatch, DiskError};
use crate::keys::{self, Key, Part};
use crate::log::ReplicaLog;
use crate::openraft_log::io_error;
use crate::types::{Snapshot, SnapshotMeta, TypeConfig};
use crate::values::{self, Checkpoint, Position};

/// A checkpoint of at most this size is written each time the machine asks for one.
const SMALL_BYTES: u64 = 4 << 10;
/// A larger checkpoint is written on request if the last one is at least this old, so that a slowly growing
/// log can still be purged.
const AT_LEAST_EVERY: Duration = Duration::from_secs(600);

/// Decides which of the checkpoints that a machine asks for are written. A log is purged only up to a
/// written checkpoint, so each skipped one keeps the log longer.
#[derive(Debug)]
pub(crate) struct Thrift {
    /// Bytes of log per byte of checkpoint.
    factor: u64,
    /// Bytes of log applied since the last written checkpoint.
    applied_bytes: u64,
    /// Bytes of log to apply before the next checkpoint, judged by the length of the last one made.
    needed_bytes: u64,
    last: Instant,
}

impl Thrift {
    /// Starts counting when the replica starts.
    pub(crate) fn new(factor: u64) -> Thrift {
        Thrift {
            factor,
            applied_bytes: 0,
            needed_bytes: 0,
            last: Instant::now(),
        }
    }

    /// Counts an applied entry of this length.
    pub(crate) fn applied(&mut self, bytes: u64) {
        self.applied_bytes = self.applied_bytes.saturating_add(bytes);
    }

    /// Returns true if a checkpoint may be due, judged by the length of the last one made.
    pub(crate) fn may_be_due(&self) -> bool {
        self.applied_bytes >= self.needed_bytes || self.is_old()
    }

    /// Returns true if a checkpoint of this length must be written now, and then counts it as written.
    pub(crate) fn affords(&mut self, bytes: u64) -> bool {
        self.needed_bytes = match bytes {
            0..=SMALL_BYTES => 0,
            long => long.saturating_mul(self.factor),
        };
        let affords = self.may_be_due();
        if affords {
            self.applied_bytes = 0;
            self.last = Instant::now();
        }
        affords
    }

    fn is_old(&self) -> bool {
        self.last.elapsed() >= AT_LEAST_EVERY
    }
}

/// Index at or below which the snapshot is searched. A replica that began with a snapshot may have a state
/// that does not know yet that nothing below it is read. Its log knows.
pub(crate) fn boundary(log: &ReplicaLog, purgeable_index: u64) -> u64 {
    if is_planted(PlantedBug::SnapshotOfTheNewest) {
        return u64::MAX;
    }
    let purged = log.marks().purged;
    purged
        .map_or(0, |purged| purged.log_id.index)
        .max(purgeable_index)
}

/// The newest checkpoint at or below `index`, with its own index.
pub(crate) async fn newest(
    log: &ReplicaLog,
    index: u64,
) -> Result<Option<(u64, Checkpoint)>, DiskError> {
    let range = keys::checkpoints(log.replica, 0, index);
    let found = log.disk().last(range).await;
    log.noting(found.and_then(|found| found.map(read).transpose()))
}

fn read((key, value): (Bytes, Bytes)) -> Result<(u64, Checkpoint), DiskError> {
    let Some(Key::Of(_, Part::Checkpoint(at))) = Key::decode(&key) else {
        return Err(crate::checksum::damaged(
            &key,
            "it is not the key of a checkpoint",
        ));
    };
    Ok((at, values::read_checkpoint(&key, value)?))
}

/// Converts a checkpoint to openraft's snapshot.
pub(crate) fn snapshot(checkpoint: Checkpoint) -> Snapshot {
    Snapshot {
        meta: SnapshotMeta {
            last_log_id: checkpoint.position.log_id,
            last_membership: checkpoint.position.membership,
        },
        snapshot: checkpoint.state,
    }
}

/// Makes a checkpoint the group's snapshot.
#[derive(Debug)]
pub struct SnapshotBuilder {
    log: Arc<ReplicaLog>,
    boundary: u64,
    /// State to return while nothing is applied: it needs no checkpoint.
    empty: Option<Bytes>,
}

impl SnapshotBuilder {
    pub(crate) fn new(
        log: Arc<ReplicaLog>,
        boundary: u64,
        empty: Option<Bytes>,
    ) -> SnapshotBuilder {
        SnapshotBuilder {
            log,
            boundary,
            empty,
        }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Bytes;

    /// Builds the snapshot. Once this returns, it is synced, and the log up to it may be purged.
    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        // The sync also waits for checkpoints that are still in the committer's queue.
        let written = self
            .log
            .commit(ChangeBatch::default(), Durability::Synced)
            .await;
        written.map_err(io_error)?;
        let newest = newest(&self.log, self.boundary).await;
        let Some((index, checkpoint)) = newest.map_err(io_error)? else {
            if let Some(state) = self.empty.take() {
                let position = Position::default();
                return Ok(snapshot(Checkpoint { position, state }));
            }
            return Err(io_error(format!(
                "replica {} has no checkpoint at or below index {}",
                self.log.replica, self.boundary
            )));
        };
        if let Some(older) = index.checked_sub(1) {
            let range = keys::checkpoints(self.log.replica, 0, older);
            let batch = ChangeBatch {
                changes: vec![Change::DeleteRange { range }],
            };
            let deleted = self.log.commit(batch, Durability::Unsynced).await;
            deleted.map_err(io_error)?;
        }
        Ok(snapshot(checkpoint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTOR: u64 = 4;

    /// Bytes of checkpoints written while `segments` of 16 KiB are applied. After each segment the machine
    /// asks for a checkpoint, whose length `length` gives.
    fn written(factor: u64, segments: u64, length: impl Fn(u64) -> u64) -> u64 {
        let mut thrift = Thrift::new(factor);
        let mut written = 0;
        for segment in 0..segments {
            thrift.applied(16 << 10);
            let bytes = length(segment);
            if thrift.may_be_due() && thrift.affords(bytes) {
                written += bytes;
            }
        }
        written
    }

    #[tokio::test(start_paused = true)]
    async fn checkpoints_take_no_more_than_their_share_of_what_is_appended() {
        let appended = 1_000 * (16 << 10);
        for written in [
            written(FACTOR, 1_000, |_| 2_290 << 10),
            written(FACTOR, 1_000, |_| 5 << 10),
            written(FACTOR, 1_000, |segment| segment * 3_000),
            written(
                FACTOR,
                1_000,
                |segment| if segment % 2 == 0 { 100 } else { 60_000 },
            ),
        ] {
            assert!(written > 0);
            assert!(written * FACTOR <= appended, "{written}");
        }
        // Every small checkpoint is written.
        assert_eq!(written(FACTOR, 1_000, |_| 4 << 10), appended / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_factor_each_is_written() {
        assert_eq!(written(0, 10, |_| 2_290 << 10), 10 * (2_290 << 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_grows_slowly_gets_one_all_the_same() {
        let mut thrift = Thrift::new(FACTOR);
        thrift.applied(100);
        assert!(!thrift.affords(1 << 20));
        tokio::time::advance(AT_LEAST_EVERY).await;
        assert!(thrift.may_be_due() && thrift.affords(1 << 20));
        assert!(!thrift.affords(1 << 20));
    }
}
