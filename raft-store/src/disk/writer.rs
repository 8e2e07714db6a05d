//! Who writes to the database: a thread of its own, since a sync blocks for milliseconds; or, for
//! the simulator, whoever commits, since nothing may run beside it there. Both do the same.

use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use bytes::Bytes;
use futures_util::future::{self, BoxFuture};
use parking_lot::Mutex;
use rocksdb::{DB, FlushOptions, WaitForCompactOptions, WriteBatch, WriteOptions};
use tokio::sync::oneshot;

use super::reclaim::{self, ReclaimOptions, Reclaimer};
use super::rocks::disk_error;
use super::watermark::Watermark;
use super::{Batch, Change, DiskError};

/// An inline writer compacts every so many flushes.
const FLUSHES_A_COMPACTION: u32 = 8;

/// Writes batches in order, and nothing more once one has failed.
pub(super) struct Writer {
    pub database: Arc<DB>,
    pub watermark: Watermark,
    pub failed: Option<DiskError>,
}

impl Writer {
    fn commit(&mut self, batch: Batch, sync: bool) -> Result<(), DiskError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = write(&self.database, batch, sync, &mut self.watermark);
        self.failed = result.as_ref().err().cloned();
        result
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Nothing rests on it: a mark that is behind only finds less.
        let _ = self.watermark.follow();
        let _ = self.watermark.sync();
    }
}

/// A writer on a thread of its own. Commits go to it in call order.
pub(super) struct WriterThread {
    /// Closing the channel ends the thread.
    commits: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Commit {
        batch: Batch,
        sync: bool,
        done: oneshot::Sender<Result<(), DiskError>>,
    },
    /// Much in this range was replaced.
    Overwritten(Range<Bytes>),
}

impl WriterThread {
    #[allow(
        clippy::disallowed_methods,
        reason = "a sync blocks for milliseconds: not on the async threads"
    )]
    pub(super) fn start(
        mut writer: Writer,
        options: ReclaimOptions,
    ) -> Result<WriterThread, DiskError> {
        let (commits, queue) = mpsc::channel();
        let reclaimer = Reclaimer::start(writer.database.clone(), options)?;
        let spawned = std::thread::Builder::new()
            .name("committer".to_string())
            .spawn(move || {
                for job in queue {
                    let (batch, sync, done) = match job {
                        Job::Commit { batch, sync, done } => (batch, sync, done),
                        Job::Overwritten(range) => {
                            reclaimer.deleted(range);
                            continue;
                        }
                    };
                    let deleted = deleted_ranges(&batch);
                    let result = writer.commit(batch, sync);
                    deleted
                        .into_iter()
                        .for_each(|range| reclaimer.deleted(range));
                    // Whoever asked may be gone; the write happened all the same.
                    let _ = done.send(result);
                }
            });
        let failed = |error| DiskError::Failed(format!("no thread for the writer: {error}"));
        Ok(WriterThread {
            commits: Mutex::new(Some(commits)),
            thread: Some(spawned.map_err(failed)?),
        })
    }

    pub(super) fn commit(
        &self,
        batch: Batch,
        sync: bool,
    ) -> BoxFuture<'static, Result<(), DiskError>> {
        let (done, happened) = oneshot::channel();
        // Queued now and not when the future is first polled: call order is commit order.
        let queued = match &*self.commits.lock() {
            Some(commits) => commits.send(Job::Commit { batch, sync, done }).is_ok(),
            None => false,
        };
        Box::pin(async move {
            let stopped = || DiskError::Failed("the database's writer has stopped".to_string());
            if queued {
                happened.await.unwrap_or_else(|_| Err(stopped()))
            } else {
                Err(stopped())
            }
        })
    }
}

impl WriterThread {
    /// Has the keys of a range compacted, so that what was replaced in it counts as garbage.
    pub(super) fn overwritten(&self, range: Range<Bytes>) {
        if let Some(commits) = &*self.commits.lock() {
            // One that has ended reclaims nothing any more.
            let _ = commits.send(Job::Overwritten(range));
        }
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.commits.lock().take();
        if let Some(thread) = self.thread.take() {
            // A panic of the writer has failed its commits already.
            let _ = thread.join();
        }
    }
}

/// A writer inside its caller's calls. The database's own threads work only while it waits for
/// them, at points that what was written decides: so the same commits leave the same files.
pub(super) struct InlineWriter {
    state: Mutex<Inside>,
}

struct Inside {
    writer: Writer,
    /// After so many bytes, what is in memory goes to tables.
    flush_after_bytes: usize,
    garbage_bytes: u64,
    unflushed_bytes: usize,
    flushes: u32,
    deleted: Vec<Range<Bytes>>,
}

impl InlineWriter {
    pub(super) fn new(
        writer: Writer,
        flush_after_bytes: usize,
        options: ReclaimOptions,
    ) -> InlineWriter {
        let state = Inside {
            writer,
            flush_after_bytes,
            garbage_bytes: options.garbage_bytes,
            unflushed_bytes: 0,
            flushes: 0,
            deleted: Vec::new(),
        };
        InlineWriter {
            state: Mutex::new(state),
        }
    }

    pub(super) fn commit(
        &self,
        batch: Batch,
        sync: bool,
    ) -> BoxFuture<'static, Result<(), DiskError>> {
        Box::pin(future::ready(self.state.lock().commit(batch, sync)))
    }
}

impl Inside {
    fn commit(&mut self, batch: Batch, sync: bool) -> Result<(), DiskError> {
        let deleted = deleted_ranges(&batch);
        let bytes = put_bytes(&batch);
        self.writer.commit(batch, sync)?;
        self.deleted.extend(deleted);
        self.unflushed_bytes += bytes;
        if self.unflushed_bytes >= self.flush_after_bytes {
            self.unflushed_bytes = 0;
            if let Err(error) = self.flush() {
                // The database takes no write after it: the next commit will tell.
                tracing::warn!(%error, "a flush failed");
            } else {
                self.writer.watermark.follow()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), rocksdb::Error> {
        let database = &self.writer.database;
        let mut options = FlushOptions::default();
        options.set_wait(true);
        database.flush_opt(&options)?;
        self.flushes += 1;
        if self.flushes.is_multiple_of(FLUSHES_A_COMPACTION) {
            reclaim::compact(database, None);
            reclaim::reclaim(
                database,
                std::mem::take(&mut self.deleted),
                self.garbage_bytes,
            );
        }
        // Files that are no longer wanted are deleted by then, too.
        database.wait_for_compact(&WaitForCompactOptions::default())
    }
}

fn put_bytes(batch: &Batch) -> usize {
    let of = |change: &Change| match change {
        Change::Put { key, head, body } => key.len() + head.len() + body.len(),
        Change::Delete { .. } | Change::DeleteRange { .. } => 0,
    };
    batch.changes.iter().map(of).sum()
}

fn deleted_ranges(batch: &Batch) -> Vec<Range<Bytes>> {
    let ranges = batch.changes.iter().filter_map(|change| match change {
        Change::DeleteRange { range } if range.start < range.end => Some(range.clone()),
        _ => None,
    });
    ranges.collect()
}

fn write(
    database: &DB,
    batch: Batch,
    sync: bool,
    watermark: &mut Watermark,
) -> Result<(), DiskError> {
    let mut changes = WriteBatch::default();
    let mut joined = Vec::new();
    for change in batch.changes {
        match change {
            Change::Put { key, head, body } if head.is_empty() => changes.put(key, body),
            Change::Put { key, head, body } => {
                joined.clear();
                joined.extend_from_slice(&head);
                joined.extend_from_slice(&body);
                changes.put(key, &joined);
            }
            Change::Delete { key } => changes.delete(key),
            Change::DeleteRange { range } if range.start < range.end => {
                changes.delete_range(range.start, range.end);
            }
            Change::DeleteRange { .. } => {}
        }
    }
    let mut options = WriteOptions::default();
    options.set_sync(sync);
    let written = database.write_opt(changes, &options);
    written.map_err(|error| disk_error(&error))?;
    match sync {
        true => watermark.advance(database.latest_sequence_number()),
        // Once a flush deleted a log, newer changes hide from the sequence number that it is gone.
        false => watermark.follow(),
    }
}
