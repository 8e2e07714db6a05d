//! RocksDB as a [`Disk`]: one database, one column family, one write-ahead log.
//!
//! - **One family.** A family that is seldom written would keep every WAL alive, and two families
//!   could be flushed apart, so that state outlives the log entries it came from.
//! - **Strict recovery.** The default (point in time) opens silently with half of what was synced
//!   after one flipped bit. `TolerateCorruptedTailRecords` drops only a torn last record, which was
//!   never synced, and refuses anything else. It rules out recycled WAL files. A log cut where a
//!   record ends looks whole to it: that is found by the [`Watermark`].
//! - **Blob files** hold the large values (record batches), so that compaction moves keys only and
//!   a record is written twice in all: WAL and flush.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Direction, ErrorKind,
    IteratorMode, Options, ReadOptions, WriteBatch, WriteBufferManager, WriteOptions,
};
use tokio::sync::oneshot;

pub use super::reclaim::ReclaimOptions;
use super::reclaim::Reclaimer;
use super::watermark::Watermark;
use super::{Batch, Change, Disk, DiskError, ScanLimit};

/// Values from this size on go to blob files.
const BLOB_MIN_BYTES: u64 = 2 << 10;
const BLOB_FILE_BYTES: u64 = 128 << 20;
/// The smallest and largest memtable; in between, a share of the budget.
const MEMTABLE_BYTES: Range<usize> = 8 << 20..64 << 20;
/// Memtables that may exist at once, the one being written among them.
const MEMTABLES: i32 = 4;

/// How much memory the database may use.
#[derive(Debug, Clone, Copy)]
pub struct RocksOptions {
    /// Memtables and block cache together.
    pub database_bytes: usize,
    /// When the space of what was deleted is given back.
    pub reclaim: ReclaimOptions,
}

impl Default for RocksOptions {
    fn default() -> RocksOptions {
        RocksOptions {
            database_bytes: 512 << 20,
            reclaim: ReclaimOptions::default(),
        }
    }
}

/// A RocksDB database.
pub struct RocksDisk {
    database: Arc<DB>,
    path: PathBuf,
    /// Commits go to one thread, in call order; closing the channel ends it.
    commits: Mutex<Option<mpsc::Sender<Commit>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Commit {
    batch: Batch,
    sync: bool,
    done: oneshot::Sender<Result<(), DiskError>>,
}

impl fmt::Debug for RocksDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksDisk")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl RocksDisk {
    /// Opens the database at `path`, creating it if it is not there. Damage is refused, never
    /// repaired by forgetting.
    pub fn open(path: &Path, options: RocksOptions) -> Result<RocksDisk, DiskError> {
        let watermark = Watermark::open(path)?;
        let database = match DB::open(&database_options(options, true), path) {
            // Some file systems (tmpfs among them) refuse direct I/O.
            Err(error) if error.kind() == ErrorKind::NotSupported || is_invalid(&error) => {
                DB::open(&database_options(options, false), path)
            }
            opened => opened,
        };
        let database = Arc::new(database.map_err(|error| disk_error(&error))?);
        watermark.check(database.latest_sequence_number())?;
        let (commits, queue) = mpsc::channel();
        let reclaimer = Reclaimer::start(database.clone(), options.reclaim)?;
        let writer = spawn_writer(database.clone(), queue, watermark, reclaimer)?;
        Ok(RocksDisk {
            database,
            path: path.to_path_buf(),
            commits: Mutex::new(Some(commits)),
            writer: Mutex::new(Some(writer)),
        })
    }

    /// A number that grows with every change: what the database holds can be told by it.
    pub fn sequence(&self) -> u64 {
        self.database.latest_sequence_number()
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&DB) -> Result<T, rocksdb::Error> + Send + 'static,
    ) -> Result<T, DiskError> {
        let database = self.database.clone();
        let reading = tokio::task::spawn_blocking(move || read(&database));
        match reading.await {
            Ok(result) => result.map_err(|error| disk_error(&error)),
            Err(error) => Err(DiskError::Failed(format!("a read ended early: {error}"))),
        }
    }
}

impl Drop for RocksDisk {
    fn drop(&mut self) {
        self.commits.lock().take();
        if let Some(writer) = self.writer.lock().take() {
            // A panic of the writer has failed its commits already.
            let _ = writer.join();
        }
    }
}

impl Disk for RocksDisk {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, DiskError>> {
        Box::pin(self.read(move |database| Ok(database.get(&key)?.map(Bytes::from))))
    }

    fn scan(
        &self,
        range: Range<Bytes>,
        limit: ScanLimit,
    ) -> BoxFuture<'_, Result<Vec<(Bytes, Bytes)>, DiskError>> {
        Box::pin(self.read(move |database| scan(database, range, limit)))
    }

    fn last(
        &self,
        range: Range<Bytes>,
    ) -> BoxFuture<'_, Result<Option<(Bytes, Bytes)>, DiskError>> {
        Box::pin(self.read(move |database| {
            if range.start >= range.end {
                return Ok(None);
            }
            let end = range.end.clone();
            let mode = IteratorMode::From(&end, Direction::Reverse);
            let within = read_options(&range);
            let found = database.iterator_opt(mode, within).next().transpose()?;
            Ok(found.map(|(key, value)| (Bytes::from(key), Bytes::from(value))))
        }))
    }

    fn commit(&self, batch: Batch, sync: bool) -> BoxFuture<'_, Result<(), DiskError>> {
        let (done, happened) = oneshot::channel();
        // Queued now and not when the future is first polled: call order is commit order.
        let queued = match &*self.commits.lock() {
            Some(commits) => commits.send(Commit { batch, sync, done }).is_ok(),
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

    fn free_bytes(&self) -> Result<u64, DiskError> {
        fs4::available_space(&self.path).map_err(|error| DiskError::Failed(error.to_string()))
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a sync blocks for milliseconds: not on the async threads"
)]
fn spawn_writer(
    database: Arc<DB>,
    queue: mpsc::Receiver<Commit>,
    mut watermark: Watermark,
    reclaimer: Reclaimer,
) -> Result<JoinHandle<()>, DiskError> {
    let spawned = std::thread::Builder::new()
        .name("committer".to_string())
        .spawn(move || {
            let mut failed = None;
            for Commit { batch, sync, done } in queue {
                let deleted = deleted_ranges(&batch);
                let result = match &failed {
                    Some(error) => Err(DiskError::clone(error)),
                    None => write(&database, batch, sync, &mut watermark),
                };
                failed = result.as_ref().err().cloned();
                deleted
                    .into_iter()
                    .for_each(|range| reclaimer.deleted(range));
                // Whoever asked may be gone; the write happened all the same.
                let _ = done.send(result);
            }
            // Nothing rests on it: a mark that is behind only finds less.
            let _ = watermark.sync();
        });
    spawned.map_err(|error| DiskError::Failed(format!("no thread for the writer: {error}")))
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
    if sync {
        watermark.advance(database.latest_sequence_number())?;
    }
    Ok(())
}

fn scan(
    database: &DB,
    range: Range<Bytes>,
    limit: ScanLimit,
) -> Result<Vec<(Bytes, Bytes)>, rocksdb::Error> {
    let mut pairs = Vec::new();
    if range.start >= range.end {
        return Ok(pairs);
    }
    let mut bytes = 0;
    let start = range.start.clone();
    let mode = IteratorMode::From(&start, Direction::Forward);
    for pair in database.iterator_opt(mode, read_options(&range)) {
        let (key, value) = pair?;
        bytes += key.len() + value.len();
        let full = pairs.len() >= limit.max_pairs || bytes > limit.max_bytes;
        if full && !pairs.is_empty() {
            break;
        }
        pairs.push((Bytes::from(key), Bytes::from(value)));
    }
    Ok(pairs)
}

fn read_options(range: &Range<Bytes>) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(range.start.to_vec());
    options.set_iterate_upper_bound(range.end.to_vec());
    options.set_verify_checksums(true);
    options
}

fn database_options(budget: RocksOptions, direct: bool) -> Options {
    let memtable_bytes =
        (budget.database_bytes / 8).clamp(MEMTABLE_BYTES.start, MEMTABLE_BYTES.end);
    let cache = Cache::new_lru_cache(budget.database_bytes);
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&cache);
    tables.set_cache_index_and_filter_blocks(true);

    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    options.set_block_based_table_factory(&tables);
    options.set_compression_type(DBCompressionType::None);
    options.set_enable_blob_files(true);
    options.set_min_blob_size(BLOB_MIN_BYTES);
    options.set_blob_file_size(BLOB_FILE_BYTES);
    options.set_write_buffer_size(memtable_bytes);
    options.set_max_write_buffer_number(MEMTABLES);
    // Memtables count against the cache: one budget for both.
    let shared = WriteBufferManager::new_write_buffer_manager_with_cache(
        memtable_bytes * MEMTABLES as usize,
        true,
        cache,
    );
    options.set_write_buffer_manager(&shared);
    options.set_use_direct_io_for_flush_and_compaction(direct);
    options.set_max_background_jobs(2);
    options.set_max_total_wal_size(8 * memtable_bytes as u64);
    options.set_max_log_file_size(4 << 20);
    options.set_keep_log_file_num(4);
    options
}

fn is_invalid(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::InvalidArgument || error.as_ref().contains("Direct I/O")
}

fn disk_error(error: &rocksdb::Error) -> DiskError {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Corruption => DiskError::Damaged(text),
        _ if text.contains("No space left") || text.contains("NoSpace") => DiskError::Full(text),
        _ => DiskError::Failed(text),
    }
}
