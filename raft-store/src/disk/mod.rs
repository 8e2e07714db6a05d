//! The disk as everything above it sees it: ordered keys, atomic batches, one kind of sync.
//!
//! The seam is low on purpose. Key space, log, apply and checkpoints are above it, so the simulator runs
//! all of them.

mod manifest;
mod memory;
mod reclaim;
mod records;
pub mod rocks;
mod wal;
mod watermark;
mod writer;

pub use memory::{CrashOutcome, MemoryDisk};

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// An ordered key-value store with atomic, optionally synced, batches.
///
/// Commits become visible to reads, and durable, in the order of the calls. A batch is visible when its
/// future completes. After a failed commit every later one fails until the disk is reopened, since the
/// effect of a failed fsync is unknown.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Reads the value of `key`; `None` if there is none.
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, DiskError>>;

    /// Reads the pairs with keys in `range`, in order, until a limit is reached. The first pair is returned
    /// even if it alone exceeds `max_bytes`.
    fn scan(
        &self,
        range: Range<Bytes>,
        limit: ScanLimit,
    ) -> BoxFuture<'_, Result<Vec<(Bytes, Bytes)>, DiskError>>;

    /// Like [`Disk::scan`], for data that is not read again soon: it evicts nothing from a cache.
    fn scan_once(
        &self,
        range: Range<Bytes>,
        limit: ScanLimit,
    ) -> BoxFuture<'_, Result<Vec<(Bytes, Bytes)>, DiskError>> {
        self.scan(range, limit)
    }

    /// Reads the last pair with a key in `range`.
    fn last(&self, range: Range<Bytes>)
    -> BoxFuture<'_, Result<Option<(Bytes, Bytes)>, DiskError>>;

    /// Applies `batch` atomically. With `sync`, it and everything committed before it survive a power loss
    /// once the future completes.
    fn commit(&self, batch: ChangeBatch, sync: bool) -> BoxFuture<'_, Result<(), DiskError>>;

    /// Reports that many values in `range` were replaced, so that the disk may reclaim the space of the old
    /// ones.
    fn overwritten(&self, _range: Range<Bytes>) {}

    /// Free space in bytes.
    fn free_bytes(&self) -> Result<u64, DiskError>;

    /// Free and used space together, in bytes, if the disk can report it.
    fn total_bytes(&self) -> Option<u64> {
        None
    }
}

/// Limits of a scan.
#[derive(Debug, Clone, Copy)]
pub struct ScanLimit {
    /// Maximum bytes of keys and values together.
    pub max_bytes: usize,
    /// Maximum number of pairs.
    pub max_pairs: usize,
}

/// Changes that take effect together, in order.
#[derive(Debug, Default)]
pub struct ChangeBatch {
    /// The changes.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Debug, Clone)]
pub enum Change {
    /// Sets `key` to `head` followed by `body`. With two parts, the caller need not copy a large body to join
    /// it to its head.
    Put {
        /// The key.
        key: Bytes,
        /// The first part of the value; may be empty.
        head: Bytes,
        /// The rest of the value.
        body: Bytes,
    },
    /// Removes one key.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Removes every key in the range.
    DeleteRange {
        /// The keys.
        range: Range<Bytes>,
    },
}

/// Error of a disk.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DiskError {
    /// No space is left. Nothing of the batch was kept.
    #[error("disk is full: {0}")]
    Full(String),
    /// Stored bytes are not as they were written.
    #[error("damaged data: {0}")]
    Damaged(String),
    /// An I/O error, or an earlier one after which the disk was not reopened.
    #[error("disk failed: {0}")]
    Failed(String),
}
