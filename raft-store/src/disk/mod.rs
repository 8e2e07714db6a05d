//! The disk as everything above it sees it: ordered keys, atomic batches, one kind of sync.
//!
//! The seam is low on purpose: key space, log, apply and checkpoints stand above it, so the
//! simulator runs all of them.

mod manifest;
mod memory;
mod reclaim;
mod records;
pub mod rocks;
mod wal;
mod watermark;
mod writer;

pub use memory::{MemoryDisk, Survivor};

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// An ordered key-value store with atomic, optionally synced, batches.
///
/// Commits become visible to reads and durable in the order in which they were called; a batch is
/// visible when its future completes. After a failed commit every later one fails until the disk
/// is opened again: what a failed fsync left behind is unknown.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// The value of `key`, if there is one.
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, DiskError>>;

    /// The pairs whose keys lie in `range`, in order, until a limit is reached. The first pair
    /// comes even if it alone passes `max_bytes`.
    fn scan(
        &self,
        range: Range<Bytes>,
        limit: ScanLimit,
    ) -> BoxFuture<'_, Result<Vec<(Bytes, Bytes)>, DiskError>>;

    /// As [`Disk::scan`], for what is not going to be read again soon: it pushes nothing out of a
    /// cache.
    fn scan_once(
        &self,
        range: Range<Bytes>,
        limit: ScanLimit,
    ) -> BoxFuture<'_, Result<Vec<(Bytes, Bytes)>, DiskError>> {
        self.scan(range, limit)
    }

    /// The last pair whose key lies in `range`.
    fn last(&self, range: Range<Bytes>)
    -> BoxFuture<'_, Result<Option<(Bytes, Bytes)>, DiskError>>;

    /// Applies `batch` atomically; with `sync`, it and everything committed before it survives a
    /// power loss once the future completes.
    fn commit(&self, batch: Batch, sync: bool) -> BoxFuture<'_, Result<(), DiskError>>;

    /// Told that many values in `range` were replaced, so that the space of the old ones may be given
    /// back.
    fn overwritten(&self, _range: Range<Bytes>) {}

    /// Free space in bytes.
    fn free_bytes(&self) -> Result<u64, DiskError>;

    /// Free and taken space together, in bytes, where the disk can tell.
    fn total_bytes(&self) -> Option<u64> {
        None
    }
}

/// How much a scan may return.
#[derive(Debug, Clone, Copy)]
pub struct ScanLimit {
    /// Keys and values together.
    pub max_bytes: usize,
    /// Pairs.
    pub max_pairs: usize,
}

/// Changes that take effect together, in order.
#[derive(Debug, Default)]
pub struct Batch {
    /// The changes.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Debug, Clone)]
pub enum Change {
    /// Sets `key` to `head` followed by `body`: two parts, so that a large body is not copied just
    /// to stand behind its head.
    Put {
        /// The key.
        key: Bytes,
        /// The first part of the value; may be empty.
        head: Bytes,
        /// The rest of it.
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

/// What a disk may answer instead.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DiskError {
    /// No space is left: nothing of the batch was kept.
    #[error("the disk is full: {0}")]
    Full(String),
    /// Bytes that are not what was written.
    #[error("damaged data: {0}")]
    Damaged(String),
    /// An I/O error, or an earlier one that the disk has not been reopened after.
    #[error("the disk failed: {0}")]
    Failed(String),
}
