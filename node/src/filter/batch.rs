//! Applies a filter to the batches of one fetch response. A batch whose records all match is sent
//! unchanged. If only some match, a new batch with those records is built. Offsets do not change.

use std::time::Duration;

use bytes::Bytes;
use ropewalk_proto::batch::{BatchError, BatchView};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use tokio::time::Instant;

use super::{Filter, TooCostly};

/// Maximum time spent on evaluating the records of one response. The next response continues from there.
const ANSWER_WITHIN: Duration = Duration::from_millis(100);

/// Partition that records come from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The partition.
    pub partition: u32,
}

/// Time left for evaluating records for one response.
#[derive(Debug)]
pub struct Budget {
    spent: Duration,
    all: Duration,
}

/// Result of filtering a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Batch to send; `None` if no record matched.
    pub batch: Option<Bytes>,
    /// Offset after the last record that was evaluated.
    pub next_offset: u64,
    /// True if evaluation stopped before the end of the batch.
    pub stopped: bool,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            spent: Duration::ZERO,
            all: ANSWER_WITHIN,
        }
    }
}

impl Budget {
    /// True once the budget is used up.
    pub fn is_spent(&self) -> bool {
        self.spent >= self.all
    }

    /// Budget without a limit, for tests that must not depend on the speed of the machine.
    #[cfg(test)]
    pub(super) fn ample() -> Budget {
        Budget {
            spent: Duration::ZERO,
            all: Duration::MAX,
        }
    }

    /// Budget that is used up after the first record.
    #[cfg(test)]
    pub(super) fn none() -> Budget {
        Budget {
            spent: Duration::ZERO,
            all: Duration::ZERO,
        }
    }
}

/// Result of evaluating the records of one batch.
struct Looked {
    /// One flag for each record evaluated so far: true if the record matches.
    wanted: Vec<bool>,
    next_offset: u64,
    all: bool,
    stopped: bool,
}

impl Looked {
    /// Leaves the rest of the batch to the next response.
    fn stop(mut self) -> Looked {
        self.all = false;
        self.stopped = true;
        self
    }
}

impl Filter {
    /// Filters the records of a batch from an offset on, at least one record. `payload` is the decompressed
    /// records section; control batches ignore it and pass unchanged.
    ///
    /// # Errors
    /// `CorruptBatch` if the records do not parse; a reader without a filter sees the same fault.
    /// `FilterTooCostly` if the first record evaluated is too costly. If a later record is, this response ends
    /// before it, and the next response starts with it and returns the error.
    pub fn apply(
        &self,
        origin: &Origin<'_>,
        base_offset: u64,
        view: &BatchView,
        payload: &Bytes,
        from: u64,
        budget: &mut Budget,
    ) -> Result<Outcome, WireError> {
        let corrupt = |error| unreadable(origin, base_offset, &error);
        let batch = view.bytes();
        let end = end_offset(base_offset, view);
        if view.is_control() {
            return Ok(Outcome {
                batch: Some(batch.clone()),
                next_offset: end,
                stopped: false,
            });
        }
        let records = view.records_of(payload.clone());
        let looked = self.look(origin, base_offset, records.clone(), from, end, budget)?;
        let batch = if looked.all {
            Some(batch.clone())
        } else if looked.wanted.contains(&true) {
            let last_delta = looked.next_offset.saturating_sub(base_offset + 1);
            let last_delta = i32::try_from(last_delta).unwrap_or(i32::MAX);
            let mut wanted = looked.wanted.iter().copied();
            let left = view.retain(records, last_delta, |_| wanted.next().unwrap_or(false));
            Some(left.map_err(corrupt)?.unwrap_or_else(|| batch.clone()))
        } else {
            None
        };
        Ok(Outcome {
            batch,
            next_offset: looked.next_offset,
            stopped: looked.stopped,
        })
    }

    fn look(
        &self,
        origin: &Origin<'_>,
        base_offset: u64,
        records: ropewalk_proto::batch::Records,
        from: u64,
        end: u64,
        budget: &mut Budget,
    ) -> Result<Looked, WireError> {
        let (began, before) = (Instant::now(), budget.spent);
        let mut looked = Looked {
            wanted: Vec::new(),
            next_offset: from,
            all: true,
            stopped: false,
        };
        let mut judged = 0;
        for record in records {
            let record = record.map_err(|error| unreadable(origin, base_offset, &error))?;
            let delta = u64::try_from(record.offset_delta).unwrap_or(0);
            let offset = base_offset.saturating_add(delta);
            if offset < from {
                looked.all = false;
                looked.wanted.push(false);
                continue;
            }
            if judged > 0 {
                budget.spent = before + began.elapsed();
                if budget.is_spent() {
                    return Ok(looked.stop());
                }
            }
            let wants = match self.wants(origin, offset, &record) {
                Ok(wants) => wants,
                Err(why) if judged == 0 => return Err(costly(origin, offset, why)),
                // The records before it are sent first.
                Err(_) => return Ok(looked.stop()),
            };
            judged += 1;
            looked.all &= wants;
            looked.wanted.push(wants);
            looked.next_offset = offset.saturating_add(1);
        }
        budget.spent = before + began.elapsed();
        // A batch that compaction has emptied is not sent.
        looked.all &= judged > 0;
        let too_far = u64::from(is_planted(PlantedBug::FilterSkips));
        looked.next_offset = looked.next_offset.max(end) + too_far;
        Ok(looked)
    }
}

fn end_offset(base_offset: u64, view: &BatchView) -> u64 {
    let last_delta = u64::try_from(view.last_offset_delta()).unwrap_or(0);
    base_offset.saturating_add(last_delta).saturating_add(1)
}

/// Error returned for a batch that cannot be parsed for filtering.
pub fn unreadable(origin: &Origin<'_>, offset: u64, error: &BatchError) -> WireError {
    let Origin { topic, partition } = origin;
    WireError::new(
        ErrorCode::CorruptBatch,
        format!(
            "batch at offset {offset} of {topic}/{partition} cannot be filtered: {error}; read it \
             without a filter, or from a later offset"
        ),
    )
}

fn costly(origin: &Origin<'_>, offset: u64, why: TooCostly) -> WireError {
    let Origin { topic, partition } = origin;
    let (what, instead) = match why {
        TooCostly::Work => ("is too large for this long a filter", "shorten it"),
        TooCostly::Json => (
            "has a value too long to be read as JSON",
            "check size(value) before json",
        ),
        TooCostly::Pattern => (
            "has a text too long for matches()",
            "check its size() first, or use contains()",
        ),
        TooCostly::Fault => ("makes the filter fail", "rewrite the filter"),
    };
    WireError::new(
        ErrorCode::FilterTooCostly,
        format!(
            "record at offset {offset} of {topic}/{partition} {what}; {instead}, or read without \
             a filter, or from a later offset"
        ),
    )
}
