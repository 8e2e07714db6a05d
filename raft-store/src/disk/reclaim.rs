//! Reclaims the space of deleted ranges.
//!
//! Large values are in blob files, which RocksDB deletes once no live value is left in them. RocksDB's own
//! collector copies the live values of the oldest quarter of the blob files at every compaction, even
//! without need. Under a steady load it wrote each record a second time, so it is off. Instead, a separate
//! thread compacts the deleted ranges; only keys are compacted, which is little. The thread turns the
//! collector on for one pass when more than half of all blob bytes are garbage. At that ratio the collector
//! copies at most one byte for each byte it reclaims.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rocksdb::{BottommostLevelCompaction, CompactOptions, DB};
use tokio::time::Instant;

use super::DiskError;

/// Maximum number of deleted ranges that wait. Further ranges are left to RocksDB's regular compactions.
const WAITING: usize = 1_024;

/// Thresholds for reclaiming space.
#[derive(Debug, Clone, Copy)]
pub struct ReclaimOptions {
    /// Time for which deletions are gathered before their keys are compacted, unless many wait.
    pub every: Duration,
    /// Garbage in blob files below which no blob file is rewritten.
    pub garbage_bytes: u64,
}

impl Default for ReclaimOptions {
    fn default() -> ReclaimOptions {
        ReclaimOptions {
            every: Duration::from_secs(30),
            garbage_bytes: 256 << 20,
        }
    }
}

/// The thread that reclaims space. It ends when this is dropped.
pub(super) struct Reclaimer {
    database: Arc<DB>,
    deleted: Option<SyncSender<Range<Bytes>>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Reclaimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reclaimer")
    }
}

impl Reclaimer {
    #[allow(
        clippy::disallowed_methods,
        reason = "rewriting files blocks for seconds; the simulator's databases do it in their callers' calls"
    )]
    pub fn start(database: Arc<DB>, options: ReclaimOptions) -> Result<Reclaimer, DiskError> {
        let (deleted, ranges) = mpsc::sync_channel(WAITING);
        let worked_on = database.clone();
        let thread = std::thread::Builder::new()
            .name("ropewalk-reclaim".to_string())
            .spawn(move || run(&worked_on, &ranges, options))
            .map_err(|error| {
                DiskError::Failed(format!("space reclaimer thread did not start: {error}"))
            })?;
        Ok(Reclaimer {
            database,
            deleted: Some(deleted),
            thread: Some(thread),
        })
    }

    /// Queues a range that was deleted or replaced.
    pub fn deleted(&self, range: Range<Bytes>) {
        let Some(deleted) = &self.deleted else { return };
        match deleted.try_send(range) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

impl Drop for Reclaimer {
    fn drop(&mut self) {
        self.deleted.take();
        // A running compaction would delay the end until it is complete.
        self.database.cancel_all_background_work(false);
        if let Some(thread) = self.thread.take() {
            // Nothing depends on the thread's result.
            let _ = thread.join();
        }
    }
}

fn run(database: &DB, deleted: &mpsc::Receiver<Range<Bytes>>, options: ReclaimOptions) {
    while let Ok(first) = deleted.recv() {
        let Some(ranges) = gather(deleted, first, options.every) else {
            return;
        };
        reclaim(database, ranges, options.garbage_bytes);
    }
}

/// Reclaims the space of deleted ranges, and rewrites blob files if that pays.
pub(super) fn reclaim(database: &DB, deleted: Vec<Range<Bytes>>, garbage_bytes: u64) {
    for range in merged(deleted) {
        compact(database, Some(&range));
    }
    if is_worth_it(database, garbage_bytes) {
        rewrite_blobs(database);
    }
}

/// Gathers the ranges deleted within a time; `None` once the sender is dropped.
fn gather(
    deleted: &mpsc::Receiver<Range<Bytes>>,
    first: Range<Bytes>,
    within: Duration,
) -> Option<Vec<Range<Bytes>>> {
    let mut ranges = vec![first];
    let end = Instant::now() + within;
    loop {
        match deleted.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(range) if ranges.len() < WAITING => ranges.push(range),
            Ok(_) | Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
    Some(ranges)
}

/// Merges ranges that touch.
fn merged(mut ranges: Vec<Range<Bytes>>) -> Vec<Range<Bytes>> {
    ranges.sort_by(|one, other| one.start.cmp(&other.start));
    ranges.dedup_by(|next, kept| {
        let touches = next.start <= kept.end;
        if touches && next.end > kept.end {
            kept.end = next.end.clone();
        }
        touches
    });
    ranges
}

fn is_worth_it(database: &DB, garbage_bytes: u64) -> bool {
    let size = |property| {
        let value = database.property_int_value(property);
        value.ok().flatten().unwrap_or(0)
    };
    let garbage = size("rocksdb.live-blob-file-garbage-size");
    garbage >= garbage_bytes && garbage > size("rocksdb.live-blob-file-size") / 2
}

/// Runs one pass of RocksDB's collector over all blob files.
fn rewrite_blobs(database: &DB) {
    let collect = |on: &str, age: &str| {
        database.set_options(&[
            ("enable_blob_garbage_collection", on),
            ("blob_garbage_collection_age_cutoff", age),
        ])
    };
    match collect("true", "1.0") {
        Ok(()) => compact(database, None),
        Err(error) => {
            tracing::warn!(
                %error,
                "blob files could not be rewritten: their garbage keeps its space"
            )
        }
    }
    if let Err(error) = collect("false", "0.0") {
        tracing::warn!(
            %error,
            "blob garbage collection could not be turned off: records are rewritten more often"
        );
    }
}

/// Compacts a range, or everything, and waits for it.
pub(super) fn compact(database: &DB, range: Option<&Range<Bytes>>) {
    let mut options = CompactOptions::default();
    // Allows compactions that relieve the writers to run beside this one.
    options.set_exclusive_manual_compaction(false);
    if range.is_none() {
        // Otherwise, data already at the bottom level would not be rewritten.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    }
    let (start, end) = (
        range.map(|range| &range.start),
        range.map(|range| &range.end),
    );
    database.compact_range_opt(start, end, &options);
}
