//! A scan of the log from one batch to the next, as used by fetches and time lookups.

use bytes::Bytes;
use openraft::EntryPayload;
use ropewalk_machines::Machine;
use ropewalk_machines::log::ScanStart;
use ropewalk_proto::batch::BatchView;
use ropewalk_proto::command::Command;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_raft_store::DiskError;
use ropewalk_raft_store::types::Entry;

use super::Partition;

/// One batch in the log.
#[derive(Debug, Clone)]
pub(super) struct StoredBatch {
    pub base_offset: u64,
    pub epoch: u64,
    /// Leader time of the append, in ms.
    pub appended_ms: i64,
    pub batch: BatchView,
}

impl StoredBatch {
    /// Offset after the batch's last record.
    pub(super) fn end_offset(&self) -> u64 {
        self.base_offset + u64::from(self.batch.offset_count())
    }
}

/// Reason why a walk ended early.
#[derive(Debug)]
pub(super) enum CursorError {
    /// Retention purged the log during the walk.
    Gone,
    Failed(WireError),
}

/// A walk over the committed batches, from a known start to the end as of its creation.
#[derive(Debug)]
pub(super) struct LogCursor<'a> {
    partition: &'a Partition,
    next: ScanStart,
    end_index: u64,
}

impl<'a> LogCursor<'a> {
    /// Creates a walk; `applied` is the last log index to read.
    pub(super) fn new(partition: &'a Partition, start: ScanStart, applied: u64) -> LogCursor<'a> {
        LogCursor {
            partition,
            next: start,
            end_index: applied.saturating_add(1),
        }
    }

    /// Returns the next batches, about `max_bytes` of them; none at the end.
    pub(super) async fn step(&mut self, max_bytes: usize) -> Result<Vec<StoredBatch>, CursorError> {
        let mut found = Vec::new();
        while found.is_empty() && self.next.log_index < self.end_index {
            let range = self.next.log_index..self.end_index;
            let entries = self.partition.replica.view.entries(range, max_bytes).await;
            let entries = entries.map_err(|error| self.unreadable(error))?;
            self.take(entries, &mut found)?;
        }
        Ok(found)
    }

    fn take(
        &mut self,
        entries: Vec<Entry>,
        found: &mut Vec<StoredBatch>,
    ) -> Result<(), CursorError> {
        let machine = self.partition.replica.view.machine();
        // Below the purgeable index, neither the log nor the refused indices are complete.
        let whole = machine.purgeable_index() < self.next.log_index;
        let first = entries.first().map(|entry| entry.log_id.index());
        if !whole {
            return Err(CursorError::Gone);
        }
        if first != Some(self.next.log_index) {
            return Err(self.failed(
                ErrorCode::DamagedData,
                format!("log entry {} is missing on this node", self.next.log_index),
            ));
        }
        for entry in entries {
            let (index, epoch) = (entry.log_id.index(), **entry.log_id.committed_leader_id());
            self.next.log_index = index + 1;
            let EntryPayload::Normal(
                Command::Append { stamp, batch } | Command::Compacted { stamp, batch, .. },
            ) = entry.payload
            else {
                continue;
            };
            if machine.is_refused(index) {
                continue;
            }
            let batch = self.view(index, batch)?;
            let one = StoredBatch {
                base_offset: self.next.base_offset,
                epoch,
                appended_ms: stamp.leader_time_ms,
                batch,
            };
            self.next.base_offset = one.end_offset();
            found.push(one);
        }
        Ok(())
    }

    fn view(&self, index: u64, batch: Bytes) -> Result<BatchView, CursorError> {
        BatchView::trusted(batch).map_err(|error| {
            self.failed(
                ErrorCode::DamagedData,
                format!("log entry {index} is damaged: {error}"),
            )
        })
    }

    fn unreadable(&self, error: DiskError) -> CursorError {
        let code = match &error {
            DiskError::Damaged(_) => ErrorCode::DamagedData,
            DiskError::Full(_) | DiskError::Failed(_) => ErrorCode::DiskFailed,
        };
        self.failed(code, error.to_string())
    }

    fn failed(&self, code: ErrorCode, what: String) -> CursorError {
        CursorError::Failed(self.partition.error(code, what))
    }
}
