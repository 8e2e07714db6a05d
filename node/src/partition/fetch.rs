//! The read path. The leader returns committed batches from an offset on, in the bytes in which they are
//! stored. The high watermark is the end of the applied state, so readers see only committed records.

use std::time::Duration;

use bytes::Bytes;
use ropewalk_proto::batch::HEADER_BYTES;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use tokio::time::Instant;

use super::Partition;
use super::cursor::{CursorError, LogCursor};

/// Minimum bytes of one read: the distance between two points of the sparse offset index.
pub const LEAST_READ_BYTES: usize = 64 << 10;

/// Parameters of a fetch.
#[derive(Debug, Clone, Copy)]
pub struct FetchSpec {
    /// First offset wanted.
    pub offset: u64,
    /// Approximate bytes of batches to return; one batch is returned even if it is larger.
    pub max_bytes: usize,
    /// Maximum wait for more records at the end of the log.
    pub max_wait: Duration,
    /// Last epoch that the reader saw; 0 if none.
    pub last_epoch: u64,
}

/// Result of a fetch.
#[derive(Debug, Clone, Default)]
pub struct Fetched {
    /// Base offset, leader epoch and bytes of each batch. The first may begin before the requested offset.
    pub batches: Vec<(u64, u64, Bytes)>,
    /// Offset after the last committed record.
    pub high_watermark: u64,
    /// First offset that can be read.
    pub log_start_offset: u64,
    /// Epoch of the leader that answered.
    pub epoch: u64,
}

/// Returns true if compaction has left nothing of a batch but its header.
fn is_empty(batch: &Bytes) -> bool {
    batch.len() <= HEADER_BYTES
}

impl Partition {
    /// Returns batches from an offset on. At the end of the log it waits up to `max_wait` for more, and
    /// returns none if none arrive.
    ///
    /// # Errors
    /// `NotLeader`, `NoLeader` and `NotServing`; `OffsetOutOfRange` with the valid range; `StaleEpoch` if the
    /// reader has seen a newer leader than this one; `DiskFailed` and `DamagedData`.
    pub async fn fetch(&self, spec: FetchSpec) -> Result<Fetched, WireError> {
        let (fetched, _) = self.fetch_held(spec, || std::future::ready(Ok(()))).await?;
        Ok(fetched)
    }

    /// Fetches like [`Partition::fetch`], and calls `hold` to reserve memory before anything is read. Also
    /// returns the result of `hold`; `None` if nothing was read.
    ///
    /// # Errors
    /// As for [`Partition::fetch`], and those of `hold`.
    pub async fn fetch_held<T, H, F>(
        &self,
        spec: FetchSpec,
        hold: H,
    ) -> Result<(Fetched, Option<T>), WireError>
    where
        H: Fn() -> F,
        F: Future<Output = Result<T, WireError>>,
    {
        let deadline = Instant::now() + spec.max_wait;
        let mut applied = self.replica.view.applied();
        let mut leads = self.leads.subscribe();
        loop {
            applied.borrow_and_update();
            let mut fetched = self.bounds(spec.last_epoch)?;
            if spec.offset > fetched.high_watermark {
                // A new leader may not know yet how much its predecessor committed.
                self.catch_up().await?;
                fetched = self.bounds(spec.last_epoch)?;
            }
            self.check_range(spec.offset, &fetched)?;
            if spec.offset < fetched.high_watermark {
                let held = hold().await?;
                match self.read(&spec, fetched).await? {
                    Some(fetched) => return Ok((fetched, Some(held))),
                    None => continue,
                }
            }
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return Ok((fetched, None)) },
                // A deposed leader must not keep its readers waiting. Never an error: this partition owns the
                // sender.
                _ = leads.changed() => {}
                () = tokio::time::sleep_until(deadline) => return Ok((fetched, None)),
            }
        }
    }

    /// Returns the readable range, or an error if this replica must not serve reads.
    fn bounds(&self, last_epoch: u64) -> Result<Fetched, WireError> {
        let epoch = self.reading_epoch()?;
        if last_epoch > epoch {
            return Err(self.error(
                ErrorCode::StaleEpoch,
                format!(
                    "the reader has seen epoch {last_epoch}, and this node led in epoch {epoch}; \
                     ask the newer leader"
                ),
            ));
        }
        let machine = self.replica.view.machine();
        Ok(Fetched {
            batches: Vec::new(),
            high_watermark: machine.next_offset(),
            log_start_offset: machine.log_start(),
            epoch,
        })
    }

    /// Returns the epoch to read in: the leader's own. A replica whose Raft has stopped, for example on a
    /// failed disk, still serves its records, in the epoch of its latest entry. It refuses if it knows of a
    /// leader on another node.
    pub(super) fn reading_epoch(&self) -> Result<u64, WireError> {
        if is_planted(PlantedBug::ReadAnywhere) {
            return Ok(self.replica.view.machine().latest_epoch());
        }
        if self.is_running() {
            return self.leading_epoch();
        }
        self.check_sound()?;
        let latest = self.replica.view.machine().latest_epoch();
        match self.host.leaders.get(self.id.group) {
            Some(leader) if leader.node != self.host.node_id => Err(self.error(
                ErrorCode::NotLeader,
                format!("node {} is the leader; ask that node", leader.node),
            )),
            _ => Ok(latest),
        }
    }

    fn check_range(&self, offset: u64, bounds: &Fetched) -> Result<(), WireError> {
        let (first, end) = (bounds.log_start_offset, bounds.high_watermark);
        if (first..=end).contains(&offset) {
            return Ok(());
        }
        Err(self.error(
            ErrorCode::OffsetOutOfRange,
            format!(
                "offset {offset} is not in the log, which holds offsets from {first} up to but \
                 not including {end}; seek to one of these"
            ),
        ))
    }

    /// Reads batches; returns `None` if retention trimmed them meanwhile.
    async fn read(
        &self,
        spec: &FetchSpec,
        mut fetched: Fetched,
    ) -> Result<Option<Fetched>, WireError> {
        let (start, applied) = {
            let machine = self.replica.view.machine();
            // The high watermark may have risen: returned records must never be beyond the reported one.
            fetched.high_watermark = machine.next_offset();
            fetched.log_start_offset = machine.log_start();
            (machine.locate(spec.offset), machine.applied())
        };
        let Some(start) = start else {
            if spec.offset < fetched.log_start_offset {
                return Ok(None);
            }
            let what = format!("no log entry is known to hold offset {}", spec.offset);
            return Err(self.error(ErrorCode::DamagedData, what));
        };
        let applied = match is_planted(PlantedBug::ServeUncommitted) {
            false => applied,
            true => u64::MAX,
        };
        let mut walk = LogCursor::new(self, start, applied);
        let mut bytes = 0;
        loop {
            let room = spec.max_bytes.saturating_sub(bytes).max(LEAST_READ_BYTES);
            let found = match walk.step(room).await {
                Ok(found) => found,
                Err(CursorError::Gone) => return Ok(None),
                Err(CursorError::Failed(error)) => return Err(error),
            };
            let at_end = found.is_empty();
            let wanted = spec.offset + u64::from(is_planted(PlantedBug::SkipSingles));
            for one in found.into_iter().filter(|one| one.end_offset() > wanted) {
                let more = one.batch.bytes().len();
                if !fetched.batches.is_empty() && bytes + more > spec.max_bytes {
                    return Ok(Some(fetched));
                }
                bytes += more;
                // Of consecutive batches that compaction has emptied, the last one is enough to show the end
                // offset.
                let batches = &mut fetched.batches;
                if batches.last().is_some_and(|(.., batch)| is_empty(batch)) {
                    batches.pop();
                }
                fetched
                    .batches
                    .push((one.base_offset, one.epoch, one.batch.into_bytes()));
            }
            if at_end || bytes >= spec.max_bytes {
                return Ok(Some(fetched));
            }
        }
    }
}
