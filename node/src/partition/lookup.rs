//! Lookups of offsets by position and time.

use ropewalk_machines::log::ScanStart;
use ropewalk_proto::batch::Records;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};

use super::Partition;
use super::cursor::{CursorError, LogCursor, StoredBatch};
use super::fetch::LEAST_READ_BYTES;
use crate::unpack::UnpackError;

/// Backlog of a reader at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Offset after the last committed record.
    pub high_watermark: u64,
    /// First offset that can be read.
    pub log_start_offset: u64,
    /// Leader time at which the first record of the backlog was appended, in ms; `None` if there is none.
    pub appended_ms: Option<i64>,
    /// Leader time now, in ms.
    pub now_ms: i64,
}

/// Bytes of the log that one step of a search reads.
const SEARCH_BYTES: usize = 1 << 20;

/// A position in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The first record that can be read.
    Beginning,
    /// The offset after the last committed record.
    End,
    /// The first record at or after a time, in ms since 1970.
    AtOrAfter(i64),
}

/// A position in the log, resolved to an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset; for a time past the last record, the high watermark.
    pub offset: u64,
    /// Timestamp of the record there; -1 if the lookup read none.
    pub timestamp_ms: i64,
    /// Epoch of the leader that answered.
    pub epoch: u64,
}

impl Partition {
    /// Returns the offset of a position. The end is linearizable: every record acknowledged before the call
    /// is below it.
    ///
    /// # Errors
    /// As for [`Partition::fetch`]; also `NotServing`, if the replica has stopped.
    pub async fn list_offset(&self, position: Position) -> Result<FoundOffset, WireError> {
        let epoch = self.reading_epoch()?;
        let at = |offset| FoundOffset {
            offset,
            timestamp_ms: -1,
            epoch,
        };
        if position != Position::Beginning && !is_planted(PlantedBug::StaleEnd) {
            // A stopped replica serves its records, but cannot know which records others have acknowledged
            // since.
            if !self.is_running() {
                return Err(self.not_leader_now());
            }
            self.catch_up().await?;
        }
        match position {
            Position::Beginning => Ok(at(self.replica.view.machine().log_start())),
            Position::End => Ok(at(self.replica.view.machine().next_offset())),
            Position::AtOrAfter(time_ms) => loop {
                match self.search(time_ms).await {
                    Ok(Some((offset, timestamp_ms))) => {
                        return Ok(FoundOffset {
                            offset,
                            timestamp_ms,
                            epoch,
                        });
                    }
                    Ok(None) => return Ok(at(self.replica.view.machine().next_offset())),
                    // The loop ends: the log start rises with each turn, at most to the high watermark.
                    Err(CursorError::Gone) => continue,
                    Err(CursorError::Failed(error)) => return Err(error),
                }
            },
        }
    }

    /// Returns the backlog from an offset on, or from the log start if that is higher.
    ///
    /// # Errors
    /// `NotLeader` and `NoLeader`; `DiskFailed` and `DamagedData`.
    pub async fn backlog(&self, offset: u64) -> Result<Backlog, WireError> {
        self.leading_epoch()?;
        loop {
            let (start, applied, mut backlog) = {
                let machine = self.replica.view.machine();
                let log_start_offset = machine.log_start();
                let backlog = Backlog {
                    high_watermark: machine.next_offset(),
                    log_start_offset,
                    appended_ms: None,
                    now_ms: self.host.clock.now_ms(),
                };
                let first = offset.max(log_start_offset);
                (machine.locate(first), machine.applied(), backlog)
            };
            let Some(start) = start else {
                return Ok(backlog);
            };
            match self.appended_at(start, applied, offset).await {
                Ok(appended_ms) => {
                    backlog.appended_ms = appended_ms;
                    return Ok(backlog);
                }
                Err(CursorError::Gone) => continue,
                Err(CursorError::Failed(error)) => return Err(error),
            }
        }
    }

    /// Returns the time at which the batch with an offset was appended.
    async fn appended_at(
        &self,
        start: ScanStart,
        applied: u64,
        offset: u64,
    ) -> Result<Option<i64>, CursorError> {
        let mut walk = LogCursor::new(self, start, applied);
        loop {
            let found = walk.step(LEAST_READ_BYTES).await?;
            if found.is_empty() {
                return Ok(None);
            }
            if let Some(one) = found.iter().find(|one| one.end_offset() > offset) {
                return Ok(Some(one.appended_ms));
            }
        }
    }

    async fn search(&self, time_ms: i64) -> Result<Option<(u64, i64)>, CursorError> {
        let (start, applied, log_start) = {
            let machine = self.replica.view.machine();
            (
                machine.locate_time(time_ms),
                machine.applied(),
                machine.log_start(),
            )
        };
        let Some(start) = start else { return Ok(None) };
        let mut walk = LogCursor::new(self, start, applied);
        loop {
            let found = walk.step(SEARCH_BYTES).await?;
            if found.is_empty() {
                return Ok(None);
            }
            let kept = found.iter().filter(|one| one.end_offset() > log_start);
            let late = kept.filter(|one| one.batch.max_timestamp_ms() >= time_ms);
            for one in late {
                let record = self.record_at(one, time_ms, log_start).await;
                if let Some(record) = record.map_err(CursorError::Failed)? {
                    return Ok(Some(record));
                }
            }
        }
    }

    /// Returns the first record of a batch at or after a time. For a batch whose records do not unpack it
    /// returns the start of the batch: the reader gets the error when it reads the batch.
    async fn record_at(
        &self,
        found: &StoredBatch,
        time_ms: i64,
        log_start: u64,
    ) -> Result<Option<(u64, i64)>, WireError> {
        let unpacker = &self.host.unpackers.readers;
        let most_bytes = self.host.limits.unpack_batch_bytes;
        let unpacked = match unpacker.unpack(&found.batch, most_bytes).await {
            Ok(unpacked) => unpacked,
            Err(UnpackError::Batch(_)) => return Ok(Some(whole(found, log_start))),
            Err(UnpackError::Overloaded(_)) => return Err(self.too_much_to_search()),
        };
        let looked = unpacker.look(&unpacked, |payload| {
            let records = found.batch.records_of(payload.clone());
            first_at(found, records, time_ms, log_start)
        });
        looked.await.map_err(|_| self.too_much_to_search())
    }

    fn too_much_to_search(&self) -> WireError {
        self.error(
            ErrorCode::Overloaded,
            "its leader has more to unpack for readers than unpack_bytes_per_s and \
             unpack_inflight_bytes allow; look up times less often, or begin at an offset",
        )
    }
}

fn whole(found: &StoredBatch, log_start: u64) -> (u64, i64) {
    (
        found.base_offset.max(log_start),
        found.batch.max_timestamp_ms(),
    )
}

fn first_at(
    found: &StoredBatch,
    records: Records,
    time_ms: i64,
    log_start: u64,
) -> Option<(u64, i64)> {
    for record in records {
        let Ok(record) = record else {
            return Some(whole(found, log_start));
        };
        let offset = found.base_offset + u64::from(record.offset_delta.unsigned_abs());
        if record.timestamp_ms >= time_ms && offset >= log_start {
            return Some((offset, record.timestamp_ms));
        }
    }
    None
}
