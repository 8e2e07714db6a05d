//! Writers of the database. On a node a separate thread writes, since a sync blocks for milliseconds. In
//! the simulator the caller of a commit writes, since nothing may run beside it. Both do the same work.

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
use super::{Change, ChangeBatch, DiskError};

/// Flushes between two compactions of an inline writer.
const FLUSHES_A_COMPACTION: u32 = 8;

/// Writes batches in order, and refuses all batches after one has failed.
pub(super) struct Writer {
    pub database: Arc<DB>,
    pub watermark: Watermark,
    pub failed: Option<DiskError>,
}

impl Writer {
    fn commit(&mut self, batch: ChangeBatch, sync: bool) -> Result<(), DiskError> {
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
        // Nothing relies on it: a mark that is behind only finds less.
        let _ = self.watermark.follow();
        let _ = self.watermark.sync();
    }
}

/// A writer on a separate thread. It receives commits in the order of the calls.
pub(super) struct WriterThread {
    /// Closing the channel ends the thread.
    commits: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Commit {
        batch: ChangeBatch,
        sync: bool,
        done: oneshot::Sender<Result<(), DiskError>>,
    },
    /// Many values in this range were replaced.
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
                    // The caller may be gone; the write happened anyway.
                    let _ = done.send(result);
                }
            });
        let failed = |error| {
            DiskError::Failed(format!(
                "database writer thread could not be started: {error}"
            ))
        };
        Ok(WriterThread {
            commits: Mutex::new(Some(commits)),
            thread: Some(spawned.map_err(failed)?),
        })
    }

    pub(super) fn commit(
        &self,
        batch: ChangeBatch,
        sync: bool,
    ) -> BoxFuture<'static, Result<(), DiskError>> {
        let (done, happened) = oneshot::channel();
        // Queued now, not when the future is first polled: call order is commit order.
        let queued = match &*self.commits.lock() {
            Some(commits) => commits.send(Job::Commit { batch, sync, done }).is_ok(),
            None => false,
        };
        Box::pin(async move {
            let stopped = || DiskError::Failed("database writer has stopped".to_string());
            if queued {
                happened.await.unwrap_or_else(|_| Err(stopped()))
            } else {
                Err(stopped())
            }
        })
    }
}

impl WriterThread {
    /// Has the keys of a range compacted, so that replaced values count as garbage.
    pub(super) fn overwritten(&self, range: Range<Bytes>) {
        if let Some(commits) = &*self.commits.lock() {
            // A writer that has stopped no longer reclaims space.
            let _ = commits.send(Job::Overwritten(range));
        }
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.commits.lock().take();
        if let Some(thread) = self.thread.take() {
            // A panic of the writer has already failed its commits.
            let _ = thread.join();
        }
    }
}

/// A writer inside its caller's calls. The database's threads work only while this writer waits for them,
/// at points that the written data determines. So the same commits leave the same files.
pub(super) struct InlineWriter {
    state: Mutex<Inside>,
}

struct Inside {
    writer: Writer,
    /// Bytes after which memory is flushed to tables.
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
        batch: ChangeBatch,
        sync: bool,
    ) -> BoxFuture<'static, Result<(), DiskError>> {
        Box::pin(future::ready(self.state.lock().commit(batch, sync)))
    }
}

impl Inside {
    fn commit(&mut self, batch: ChangeBatch, sync: bool) -> Result<(), DiskError> {
        let deleted = deleted_ranges(&batch);
        let bytes = put_bytes(&batch);
        self.writer.commit(batch, sync)?;
        self.deleted.extend(deleted);
        self.unflushed_bytes += bytes;
        if self.unflushed_bytes >= self.flush_after_bytes {
            self.unflushed_bytes = 0;
            if let Err(error) = self.flush() {
                // The database takes no write after it, so the next commit fails.
                tracing::warn!(%error, "database flush failed");
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
        // By then, RocksDB has also deleted files that it no longer needs.
        database.wait_for_compact(&WaitForCompactOptions::default())
    }
}

fn put_bytes(batch: &ChangeBatch) -> usize {
    let of = |change: &Change| match change {
        Change::Put { key, head, body } => key.len() + head.len() + body.len(),
        Change::Delete { .. } | Change::DeleteRange { .. } => 0,
    };
    batch.changes.iter().map(of).sum()
}

fn deleted_ranges(batch: &ChangeBatch) -> Vec<Range<Bytes>> {
    let ranges = batch.changes.iter().filter_map(|change| match change {
        Change::DeleteRange { range } if range.start < range.end => Some(range.clone()),
        _ => None,
    });
    ranges.collect()
}

fn write(
    database: &DB,
    batch: ChangeBatch,
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
        // After a flush has deleted a log, newer changes can hide the loss of that flush from the sequence
        // number.
        false => watermark.follow(),
    }
}
