//! One step of compaction on one replica: it collects the keys of a stretch of the log, and rewrites
//! everything before its end.
//!
//! The rewrite goes from the beginning of the log, in order. So a tombstone never goes before the older
//! records of its key, for readers and after a crash.

use std::ops::ControlFlow;
use std::time::Duration;

use openraft::EntryPayload;
use ropewalk_machines::log::Compaction;
use ropewalk_machines::log::PartitionMachine;
use ropewalk_machines::log::ScanStart;
use ropewalk_proto::batch::{BatchView, Record};
use ropewalk_proto::command::Command;
use ropewalk_raft_store::types::Entry;
use ropewalk_raft_store::{DiskError, ReplicaReader, Rewritten};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::keys::LastOffsets;
use super::{Progress, UNPACKED_BYTES};
use crate::env::cpu_bound;

/// Bytes of the log read at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Unpacked bytes after which other tasks get their turn; one batch is always processed. A chunk that
/// compresses extremely well can hold a thousand times its length.
pub(super) const UNPACKED_IN_ONE_GO_BYTES: usize = 8 << 20;

/// Minimum bytes of a record, for its lengths and its timestamp.
const RECORD_BYTES: usize = 8;

/// Reason why a step ended early. Its writes remain, and the next step repeats them.
#[derive(Debug, thiserror::Error)]
pub(super) enum RewriteError {
    /// The log was purged during the step.
    #[error("log was trimmed during the compaction")]
    Trimmed,
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Budget of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct RewriteBudget {
    /// Bytes per second, reads and writes together.
    pub bytes_per_s: usize,
    /// Memory for keys.
    pub memory_bytes: usize,
}

/// Does one step towards `target`. Returns the progress, which is also synced to disk, and statistics. The
/// compaction is complete once [`Progress::has_done`] returns true.
pub(super) async fn step(
    view: &ReplicaReader<PartitionMachine>,
    done: &Progress,
    target: &Compaction,
    allowance: RewriteBudget,
) -> Result<(Progress, Rewritten), RewriteError> {
    let mut keys = LastOffsets::new(allowance.memory_bytes);
    let end = gather(view, done, target, &mut keys, allowance).await?;
    let is_last = end.base_offset >= target.to_offset;
    let mut rewrite = Rewrite {
        keys: &keys,
        tombstones_below: match is_last {
            true => target.tombstones_below,
            false => done.tombstones_below,
        },
        tombstones: 0,
    };
    let from = view.machine().beginning();
    let all = walk(view, from, end.log_index, allowance, |at, batch| {
        rewrite.one(at.base_offset, batch)
    })
    .await?;
    view.reclaim(from.log_index..end.log_index);
    let progress = Progress {
        to_offset: end.base_offset,
        next_index: end.log_index,
        tombstones_below: rewrite.tombstones_below,
        left_bytes: all.after_bytes,
        tombstones: rewrite.tombstones,
    };
    progress.store(view).await?;
    Ok((progress, all))
}

/// Collects the keys after the compacted part, as far as they fit. Returns the end of that stretch.
async fn gather(
    view: &ReplicaReader<PartitionMachine>,
    done: &Progress,
    target: &Compaction,
    keys: &mut LastOffsets,
    allowance: RewriteBudget,
) -> Result<ScanStart, RewriteError> {
    let beginning = view.machine().beginning();
    let mut from = ScanStart {
        log_index: done.next_index,
        base_offset: done.to_offset,
    };
    if from.log_index < beginning.log_index {
        from = beginning;
    }
    let whole = ScanStart {
        log_index: target.end_index + 1,
        base_offset: target.to_offset,
    };
    if from.log_index >= whole.log_index {
        // Only tombstones are left to remove, or the log begins after the target.
        return Ok(from);
    }
    let mut full = None;
    walk(view, from, whole.log_index, allowance, |at, batch| {
        if full.is_some() {
            return Left::whole(0);
        }
        if !keys.has_room(batch.offset_count() as usize) {
            full = Some(at);
            return Left::whole(0);
        }
        // A batch that does not unpack stays as it is, and supersedes nothing.
        let Ok(records) = batch.records(UNPACKED_BYTES) else {
            return Left::whole(UNPACKED_BYTES);
        };
        let mut unpacked_bytes = 0;
        for record in &records {
            unpacked_bytes += record_bytes(record);
            if let Some(key) = &record.key {
                keys.put(key, offset_of(at.base_offset, record));
            }
        }
        Left::whole(unpacked_bytes)
    })
    .await?;
    Ok(full.unwrap_or(whole))
}

/// The rest of one batch.
pub(super) struct Left {
    /// `None`: the whole batch stays.
    pub batch: Option<bytes::Bytes>,
    /// Bytes that were unpacked for the decision.
    pub unpacked_bytes: usize,
}

impl Left {
    fn whole(unpacked_bytes: usize) -> Left {
        Left {
            batch: None,
            unpacked_bytes,
        }
    }
}

/// Decides which records of a batch stay.
struct Rewrite<'a> {
    keys: &'a LastOffsets,
    tombstones_below: u64,
    /// Tombstones that stay.
    tombstones: u64,
}

impl Rewrite<'_> {
    /// Returns the rest of one batch, if any record goes.
    fn one(&mut self, base_offset: u64, batch: &BatchView) -> Left {
        let Ok(records) = batch.iter_records(UNPACKED_BYTES) else {
            return Left::whole(UNPACKED_BYTES);
        };
        let unpacked_bytes = records.payload_bytes();
        let mut tombstones = 0;
        let stays = |record: &Record| {
            let offset = offset_of(base_offset, record);
            let Some(key) = &record.key else {
                return true;
            };
            let is_tombstone = record.value.is_none();
            let expired = is_tombstone && offset < self.tombstones_below;
            let goes = expired || self.keys.is_superseded(key, offset);
            tombstones += u64::from(is_tombstone && !goes);
            !goes
        };
        let left = batch.retain(records, i32::MAX, stays);
        self.tombstones += tombstones;
        Left {
            batch: left.unwrap_or_default(),
            unpacked_bytes,
        }
    }
}

/// Approximate unpacked bytes of a record.
fn record_bytes(record: &Record) -> usize {
    let parts = [&record.key, &record.value].into_iter().flatten();
    parts.map(bytes::Bytes::len).sum::<usize>() + RECORD_BYTES
}

fn offset_of(base_offset: u64, record: &Record) -> u64 {
    base_offset + u64::from(record.offset_delta.unsigned_abs())
}

/// Visits the batches that have offsets, at the allowed rate, and replaces each by the result of `left`.
/// Appends that the state machine refused have no offsets.
pub(super) async fn walk(
    view: &ReplicaReader<PartitionMachine>,
    from: ScanStart,
    end_index: u64,
    allowance: RewriteBudget,
    mut left: impl FnMut(ScanStart, &BatchView) -> Left + Send,
) -> Result<Rewritten, RewriteError> {
    let mut all = Rewritten {
        next: from.log_index,
        ..Rewritten::default()
    };
    let mut base_offset = from.base_offset;
    let mut next = Instant::now();
    while all.next < end_index {
        let mut trimmed = false;
        let mut unpacked_bytes = 0;
        let step = view.rewrite(all.next..end_index, CHUNK_BYTES, |entry| {
            if unpacked_bytes >= UNPACKED_IN_ONE_GO_BYTES {
                return ControlFlow::Break(());
            }
            let index = entry.log_id.index;
            let (batch, refused) = {
                let machine = view.machine();
                // The state no longer lists the refused appends below the log start.
                trimmed |= index < machine.beginning().log_index;
                (batch_of(entry), machine.is_refused(index))
            };
            let Some(batch) = batch.filter(|_| !trimmed && !refused) else {
                return ControlFlow::Continue(None);
            };
            let at = ScanStart {
                log_index: index,
                base_offset,
            };
            base_offset += u64::from(batch.offset_count());
            let left = cpu_bound(|| left(at, &batch));
            unpacked_bytes += left.unpacked_bytes;
            ControlFlow::Continue(left.batch.and_then(|batch| compacted(entry, batch)))
        });
        let step = step.await?;
        if trimmed || step.next == all.next {
            return Err(RewriteError::Trimmed);
        }
        all.next = step.next;
        all.before_bytes += step.before_bytes;
        all.after_bytes += step.after_bytes;
        all.entries += step.entries;
        let written = if step.entries > 0 {
            step.after_bytes
        } else {
            0
        };
        next = pace(next, step.before_bytes + written, allowance).await;
        // If the rate is not the limit, only this lets other tasks run.
        yield_now().await;
    }
    Ok(all)
}

/// Waits until this many more bytes are allowed.
async fn pace(since: Instant, bytes: u64, allowance: RewriteBudget) -> Instant {
    let rate = allowance.bytes_per_s.max(1) as f64;
    let next = since + Duration::from_secs_f64(bytes as f64 / rate);
    sleep_until(next).await;
    next
}

fn batch_of(entry: &Entry) -> Option<BatchView> {
    let EntryPayload::Normal(Command::Append { batch, .. } | Command::Compacted { batch, .. }) =
        &entry.payload
    else {
        return None;
    };
    // Applied entries have a valid header.
    BatchView::trusted(batch.clone()).ok()
}

/// Builds the command that replaces an append of which only `batch` is left.
fn compacted(entry: &Entry, batch: bytes::Bytes) -> Option<Command> {
    let EntryPayload::Normal(command) = &entry.payload else {
        return None;
    };
    match command {
        Command::Append { stamp, batch: came } => Some(Command::Compacted {
            stamp: *stamp,
            came_bytes: u32::try_from(came.len()).unwrap_or(u32::MAX),
            batch,
        }),
        Command::Compacted {
            stamp, came_bytes, ..
        } => Some(Command::Compacted {
            stamp: *stamp,
            came_bytes: *came_bytes,
            batch,
        }),
        _ => None,
    }
}
