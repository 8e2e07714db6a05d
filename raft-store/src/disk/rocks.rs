//! RocksDB as a [`Disk`]: one database, one column family, one write-ahead log.
//!
//! - **One family.** A rarely written family would keep every WAL alive. Two families could be flushed
//!   separately, and state would outlive the log entries it came from.
//! - **Strict recovery.** After one flipped bit, the default (point in time) silently opens with half of the
//!   synced data. `TolerateCorruptedTailRecords` drops only a torn last record, which was never synced, and
//!   refuses anything else. It rules out recycled WAL files. A log cut at the end of a record looks whole to
//!   it; the [`Watermark`] finds that. RocksDB reads a manifest less strictly, so this room checks it first.
//! - **Blob files** hold the large values (record batches). So compaction moves only keys, and a record is
//!   written twice in all: WAL and flush.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
pub use rocksdb::Env;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Direction, ErrorKind,
    IteratorMode, Options, ReadOptions, WriteBufferManager,
};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};

pub use super::manifest::{DatabaseFiles, Directory};
pub use super::reclaim::ReclaimOptions;
pub use super::watermark::MarkFile;
use super::watermark::Watermark;
use super::writer::{InlineWriter, Writer, WriterThread};
use super::{ChangeBatch, Disk, DiskError, ScanLimit};

/// Smallest value that goes to a blob file.
const BLOB_MIN_BYTES: u64 = 2 << 10;
const BLOB_FILE_BYTES: u64 = 128 << 20;
/// Smallest and largest memtable. In between, a memtable is a share of the budget.
const MEMTABLE_BYTES: Range<usize> = 8 << 20..64 << 20;
/// Maximum number of memtables at once, including the active one.
const MEMTABLES: i32 = 4;
/// Length beyond which the manifest is rewritten: opening reads all of it.
const MANIFEST_BYTES: usize = 64 << 20;

/// Maximum bytes that an inline database keeps in memory before it flushes. It is less than a memtable, so
/// RocksDB never flushes one by itself.
pub const MOST_INLINE_BYTES: usize = 16 << 20;

type Found = Result<Option<(Bytes, Bytes)>, rocksdb::Error>;

/// Memory budget of the database, and its thresholds for reclaiming space.
#[derive(Debug, Clone, Copy)]
pub struct RocksOptions {
    /// Memtables and block cache together.
    pub database_bytes: usize,
    /// Thresholds for reclaiming the space of deleted data.
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

/// A database that does all its work inside its callers' calls, on files that they choose. The same calls
/// leave the same files, as a simulator needs.
pub struct Inline {
    /// Files of the database.
    pub env: Env,
    /// The same files, for the mark.
    pub files: Box<dyn DatabaseFiles>,
    /// File of the mark.
    pub mark: Box<dyn MarkFile>,
    /// True if there is no database among the files yet.
    pub is_new: bool,
    /// Bytes of puts after which memory is flushed to tables. At most [`MOST_INLINE_BYTES`].
    pub flush_after_bytes: usize,
}

impl fmt::Debug for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inline").finish_non_exhaustive()
    }
}

/// A RocksDB database.
pub struct RocksDisk {
    database: Arc<DB>,
    path: PathBuf,
    commits: Commits,
}

enum Commits {
    Thread(WriterThread),
    Inline(InlineWriter),
    /// The database is open only for reading.
    None,
}

impl fmt::Debug for RocksDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksDisk")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl RocksDisk {
    /// Opens the database at `path`, and creates it if it does not exist. Damage is refused, and never
    /// repaired by dropping data.
    pub fn open(path: &Path, options: RocksOptions) -> Result<RocksDisk, DiskError> {
        let watermark = Watermark::open(path)?;
        let database = match DB::open(&database_options(options, true), path) {
            // Some file systems (tmpfs among them) refuse direct I/O.
            Err(error) if error.kind() == ErrorKind::NotSupported || is_invalid(&error) => {
                DB::open(&database_options(options, false), path)
            }
            opened => opened,
        };
        let writer = writer(database, watermark)?;
        Ok(RocksDisk {
            database: writer.database.clone(),
            path: path.to_path_buf(),
            commits: Commits::Thread(WriterThread::start(writer, options.reclaim)?),
        })
    }

    /// Opens the database that `inline` holds at `path`. It is the same database, but no work runs outside
    /// its callers' calls.
    pub fn open_inline(
        path: &Path,
        options: RocksOptions,
        inline: Inline,
    ) -> Result<RocksDisk, DiskError> {
        let watermark = Watermark::of(inline.mark, inline.files, inline.is_new, path)?;
        let tuned = inline_options(options, &inline.env);
        let writer = writer(DB::open(&tuned, path), watermark)?;
        let flush_after_bytes = inline.flush_after_bytes.min(MOST_INLINE_BYTES);
        Ok(RocksDisk {
            database: writer.database.clone(),
            path: path.to_path_buf(),
            commits: Commits::Inline(InlineWriter::new(
                writer,
                flush_after_bytes,
                options.reclaim,
            )),
        })
    }

    /// Opens the database that `inline` holds at `path` only for reading. Nothing is written, not even when
    /// it opens.
    pub fn open_to_look(
        path: &Path,
        options: RocksOptions,
        inline: Inline,
    ) -> Result<RocksDisk, DiskError> {
        let watermark = Watermark::of(inline.mark, inline.files, inline.is_new, path)?;
        let tuned = inline_options(options, &inline.env);
        let database = DB::open_for_read_only(&tuned, path, false);
        Ok(RocksDisk {
            database: checked(database, &watermark)?,
            path: path.to_path_buf(),
            commits: Commits::None,
        })
    }

    /// A number that grows with every change, and so identifies the content of the database.
    pub fn sequence(&self) -> u64 {
        self.database.latest_sequence_number()
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "a read blocks; the simulator's databases read in their callers' calls"
    )]
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&DB) -> Result<T, rocksdb::Error> + Send + 'static,
    ) -> Result<T, DiskError> {
        if !matches!(self.commits, Commits::Thread(_)) {
            return read(&self.database).map_err(|error| disk_error(&error));
        }
        let database = self.database.clone();
        let reading = tokio::task::spawn_blocking(move || read(&database));
        match reading.await {
            Ok(result) => result.map_err(|error| disk_error(&error)),
            Err(error) => Err(DiskError::Failed(format!(
                "database read did not finish: {error}"
            ))),
        }
    }
}

/// The writer of a database that was just opened, unless the database is behind its mark.
fn writer(
    database: Result<DB, rocksdb::Error>,
    mut watermark: Watermark,
) -> Result<Writer, DiskError> {
    let database = checked(database, &watermark)?;
    watermark.opened()?;
    Ok(Writer {
        database,
        watermark,
        failed: None,
    })
}

fn checked(
    database: Result<DB, rocksdb::Error>,
    watermark: &Watermark,
) -> Result<Arc<DB>, DiskError> {
    let database = database.map_err(|error| disk_error(&error))?;
    watermark.check(database.latest_sequence_number())?;
    Ok(Arc::new(database))
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
        Box::pin(self.read(move |database| scan(database, range, limit, true)))
    }

    fn scan_once(
        &self,
        range: Range<Bytes>,
        limit: ScanLimit,
    ) -> BoxFuture<'_, Result<Vec<(Bytes, Bytes)>, DiskError>> {
        Box::pin(self.read(move |database| scan(database, range, limit, false)))
    }

    fn last(
        &self,
        range: Range<Bytes>,
    ) -> BoxFuture<'_, Result<Option<(Bytes, Bytes)>, DiskError>> {
        Box::pin(self.read(move |database| {
            if range.start >= range.end {
                return Ok(None);
            }
            match last_from_behind(database, &range) {
                Err(error) if error.kind() == ErrorKind::Corruption => {
                    last_from_the_front(database, &range)
                }
                found => found,
            }
        }))
    }

    fn commit(&self, batch: ChangeBatch, sync: bool) -> BoxFuture<'_, Result<(), DiskError>> {
        match &self.commits {
            Commits::Thread(writer) => writer.commit(batch, sync),
            Commits::Inline(writer) => writer.commit(batch, sync),
            Commits::None => {
                let error = "database is open for inspection only".to_string();
                Box::pin(ready(Err(DiskError::Failed(error))))
            }
        }
    }

    fn overwritten(&self, range: Range<Bytes>) {
        // An inline database compacts everything, every few flushes.
        if let Commits::Thread(writer) = &self.commits {
            writer.overwritten(range);
        }
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        if !matches!(self.commits, Commits::Thread(_)) {
            // The files belong to the caller, and so does the space for them.
            return Ok(u64::MAX);
        }
        fs4::available_space(&self.path).map_err(|error| DiskError::Failed(error.to_string()))
    }

    fn total_bytes(&self) -> Option<u64> {
        match self.commits {
            Commits::Thread(_) => fs4::total_space(&self.path).ok(),
            _ => None,
        }
    }
}

fn scan(
    database: &DB,
    range: Range<Bytes>,
    limit: ScanLimit,
    keep_in_cache: bool,
) -> Result<Vec<(Bytes, Bytes)>, rocksdb::Error> {
    let mut pairs = Vec::new();
    if range.start >= range.end {
        return Ok(pairs);
    }
    let mut bytes = 0;
    let start = range.start.clone();
    let mode = IteratorMode::From(&start, Direction::Forward);
    let mut options = read_options(&range);
    options.fill_cache(keep_in_cache);
    for pair in database.iterator_opt(mode, options) {
        let (key, value) = pair?;
        bytes += key.len() + value.len();
        let full = pairs.len() >= limit.max_pairs || bytes > limit.max_bytes;
        if full && !pairs.is_empty() {
            break;
        }
        pairs.push(owned((key, value)));
    }
    Ok(pairs)
}

fn last_from_behind(database: &DB, range: &Range<Bytes>) -> Found {
    let mode = IteratorMode::From(&range.end, Direction::Reverse);
    let mut pairs = database.iterator_opt(mode, read_options(range));
    Ok(pairs.next().transpose()?.map(owned))
}

/// Finds the last pair by reading the whole range. A step back reads the last block of every table that
/// ends before the range, and so meets damage outside the range. A new replica would never get rid of the
/// damage of its predecessor.
fn last_from_the_front(database: &DB, range: &Range<Bytes>) -> Found {
    let mode = IteratorMode::From(&range.start, Direction::Forward);
    let mut options = read_options(range);
    options.fill_cache(false);
    let mut last = None;
    for pair in database.iterator_opt(mode, options) {
        last = Some(pair?);
    }
    Ok(last.map(owned))
}

fn owned((key, value): (Box<[u8]>, Box<[u8]>)) -> (Bytes, Bytes) {
    (Bytes::from(key), Bytes::from(value))
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
    options.set_wal_recovery_mode(match is_planted(PlantedBug::PointInTime) {
        false => DBRecoveryMode::TolerateCorruptedTailRecords,
        true => DBRecoveryMode::PointInTime,
    });
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
    options.set_max_manifest_file_size(MANIFEST_BYTES);
    options.set_max_log_file_size(4 << 20);
    options.set_keep_log_file_num(4);
    options
}

/// Options for a database whose files belong to its caller. The writer starts the work, and waits for
/// RocksDB's threads.
fn inline_options(budget: RocksOptions, env: &Env) -> Options {
    let mut options = database_options(budget, false);
    options.set_env(env);
    options.set_write_buffer_size(MEMTABLE_BYTES.end);
    options.set_disable_auto_compactions(true);
    options.set_max_file_opening_threads(1);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn is_invalid(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::InvalidArgument || error.as_ref().contains("Direct I/O")
}

pub(super) fn disk_error(error: &rocksdb::Error) -> DiskError {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Corruption => DiskError::Damaged(text),
        _ if text.contains("No space left") || text.contains("NoSpace") => DiskError::Full(text),
        _ => DiskError::Failed(text),
    }
}
