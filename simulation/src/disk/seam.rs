//! The disk as a simulated process sees it: the opened disk, with the faults that all kinds have in common.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use ropewalk_raft_store::disk::{ChangeBatch, ScanLimit};
use ropewalk_raft_store::{Disk, DiskError};

use super::DiskFault;

/// Free space that a disk reports while no fault limits it.
const FREE_BYTES: u64 = 1 << 40;

/// Digits of a number in the name of one of RocksDB's files.
const FILE_NUMBER_DIGITS: usize = 6;

/// Fault of a host's disk, shared with the process that opened it.
pub(super) type Fault = Arc<Mutex<DiskFault>>;

/// An opened disk.
#[derive(Debug)]
pub(super) struct Seam {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) fault: Fault,
}

impl Seam {
    /// Present duration of a sync.
    fn sync_ms(&self) -> u64 {
        match *self.fault.lock() {
            DiskFault::SlowMs(ms) => ms,
            _ => 0,
        }
    }
}

impl Disk for Seam {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, DiskError>> {
        Box::pin(async move { self.disk.get(key).await.map_err(repeatable) })
    }

    fn scan(
        &self,
        range: Range<Bytes>,
        limit: ScanLimit,
    ) -> BoxFuture<'_, Result<Vec<(Bytes, Bytes)>, DiskError>> {
        Box::pin(async move { self.disk.scan(range, limit).await.map_err(repeatable) })
    }

    fn last(
        &self,
        range: Range<Bytes>,
    ) -> BoxFuture<'_, Result<Option<(Bytes, Bytes)>, DiskError>> {
        Box::pin(async move { self.disk.last(range).await.map_err(repeatable) })
    }

    fn commit(&self, batch: ChangeBatch, sync: bool) -> BoxFuture<'_, Result<(), DiskError>> {
        let sync_ms = self.sync_ms();
        if !sync || sync_ms == 0 {
            let done = self.disk.commit(batch, sync);
            return Box::pin(async move { done.await.map_err(repeatable) });
        }
        // Written now, in the order of the calls; synced when the time is over.
        let written = self.disk.commit(batch, false);
        Box::pin(async move {
            written.await.map_err(repeatable)?;
            tokio::time::sleep(Duration::from_millis(sync_ms)).await;
            let synced = self.disk.commit(ChangeBatch::default(), true).await;
            synced.map_err(repeatable)
        })
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        Ok(match *self.fault.lock() {
            DiskFault::Full | DiskFault::LowSpace => 0,
            _ => FREE_BYTES,
        })
    }
}

/// An error with the same words in each run of a seed: RocksDB mixes its checksums with random numbers and
/// prints them.
pub(super) fn repeatable(error: DiskError) -> DiskError {
    match error {
        DiskError::Damaged(text) => DiskError::Damaged(without_checksums(&text)),
        other => other,
    }
}

fn without_checksums(text: &str) -> String {
    let parts = text.split_inclusive(|one: char| !one.is_ascii_digit());
    let mut kept = String::with_capacity(text.len());
    for part in parts {
        let number = part.trim_end_matches(|one: char| !one.is_ascii_digit());
        // Shorter numbers are positions and names of files.
        if number.len() > FILE_NUMBER_DIGITS {
            kept.push('#');
            kept.push_str(&part[number.len()..]);
        } else {
            kept.push_str(part);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_left_out_of_an_error_and_file_names_stay() {
        let told = "mismatch: stored = 3541875906, computed = 2174628 in /db/000008.sst offset 0";
        let kept = "mismatch: stored = #, computed = # in /db/000008.sst offset 0";
        assert_eq!(without_checksums(told), kept);
        assert_eq!(without_checksums("type = 4"), "type = 4");
    }
}
