//! The disk as a simulated process sees it: the one that was opened, with the faults that are the
//! same for every kind.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use ropewalk_raft_store::disk::{Batch, ScanLimit};
use ropewalk_raft_store::{Disk, DiskError};

use super::DiskFault;

/// What a disk says it has free while space is no part of the story.
const FREE_BYTES: u64 = 1 << 40;

/// The fault of a host's disk, shared with whoever opened it.
pub(super) type Fault = Arc<Mutex<DiskFault>>;

/// An opened disk.
#[derive(Debug)]
pub(super) struct Seam {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) fault: Fault,
}

impl Seam {
    /// How long a sync takes now.
    fn sync_ms(&self) -> u64 {
        match *self.fault.lock() {
            DiskFault::SlowMs(ms) => ms,
            _ => 0,
        }
    }
}

impl Disk for Seam {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, DiskError>> {
        self.disk.get(key)
    }

    fn scan(
        &self,
        range: Range<Bytes>,
        limit: ScanLimit,
    ) -> BoxFuture<'_, Result<Vec<(Bytes, Bytes)>, DiskError>> {
        self.disk.scan(range, limit)
    }

    fn last(
        &self,
        range: Range<Bytes>,
    ) -> BoxFuture<'_, Result<Option<(Bytes, Bytes)>, DiskError>> {
        self.disk.last(range)
    }

    fn commit(&self, batch: Batch, sync: bool) -> BoxFuture<'_, Result<(), DiskError>> {
        let sync_ms = self.sync_ms();
        if !sync || sync_ms == 0 {
            return self.disk.commit(batch, sync);
        }
        // Written now, in the order of the calls; synced when the time is up.
        let written = self.disk.commit(batch, false);
        Box::pin(async move {
            written.await?;
            tokio::time::sleep(Duration::from_millis(sync_ms)).await;
            self.disk.commit(Batch::default(), true).await
        })
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        Ok(match *self.fault.lock() {
            DiskFault::Full | DiskFault::LowSpace => 0,
            _ => FREE_BYTES,
        })
    }
}
