//! A filter on the batches of one answer. What matches whole goes on untouched; of what matches in part a
//! batch is made that has this part. Offsets stay what they were.

use std::time::Duration;

use bytes::Bytes;
use ropewalk_proto::batch::{BatchError, BatchView};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::mistake::{Mistake, made};
use tokio::time::Instant;

use super::{Filter, TooCostly};

/// How long the records of one answer may be looked at. What is left is for the next one.
const ANSWER_WITHIN: Duration = Duration::from_millis(100);

/// Where records come from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The partition.
    pub partition: u32,
}

/// How much may be looked at for one answer.
#[derive(Debug)]
pub struct Budget {
    spent: Duration,
    all: Duration,
}

/// What is left of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What to send, if anything is left.
    pub batch: Option<Bytes>,
    /// The offset after the last record that was looked at.
    pub next_offset: u64,
    /// Whether the time was up before the batch was at its end.
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
    /// Whether it is used up.
    pub fn is_spent(&self) -> bool {
        self.spent >= self.all
    }

    /// One that no machine is too slow for.
    #[cfg(test)]
    pub(super) fn ample() -> Budget {
        Budget {
            spent: Duration::ZERO,
            all: Duration::MAX,
        }
    }

    /// One that is used up once anything is looked at.
    #[cfg(test)]
    pub(super) fn none() -> Budget {
        Budget {
            spent: Duration::ZERO,
            all: Duration::ZERO,
        }
    }
}

/// What was found of the records of one batch.
struct Looked {
    /// Of each record in the batch, as far as it was looked at, whether it is wanted.
    wanted: Vec<bool>,
    next_offset: u64,
    all: bool,
    stopped: bool,
}

impl Looked {
    /// The rest of the batch is for the next answer.
    fn stop(mut self) -> Looked {
        self.all = false;
        self.stopped = true;
        self
    }
}

impl Filter {
    /// Filters the records of a batch from an offset on, at least one. `payload` is what they unpack to; it
    /// is not looked at for the log's own markers.
    ///
    /// # Errors
    /// `CorruptBatch` for what does not parse, as a reader without a filter finds; `FilterTooCostly`
    /// if that is so with the first record: else it is for the next answer to say.
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
                // What was found before it goes out first.
                Err(_) => return Ok(looked.stop()),
            };
            judged += 1;
            looked.all &= wants;
            looked.wanted.push(wants);
            looked.next_offset = offset.saturating_add(1);
        }
        budget.spent = before + began.elapsed();
        // Nothing is sent of a batch in which compaction has left no record.
        looked.all &= judged > 0;
        let too_far = u64::from(made(Mistake::FilterSkips));
        looked.next_offset = looked.next_offset.max(end) + too_far;
        Ok(looked)
    }
}

fn end_offset(base_offset: u64, view: &BatchView) -> u64 {
    let last_delta = u64::try_from(view.last_offset_delta()).unwrap_or(0);
    base_offset.saturating_add(last_delta).saturating_add(1)
}

/// Error for a reader of a batch that can't be filtered.
pub fn unreadable(origin: &Origin<'_>, offset: u64, error: &BatchError) -> WireError {
    let Origin { topic, partition } = origin;
    WireError::new(
        ErrorCode::CorruptBatch,
        format!(
            "the batch at offset {offset} of {topic}/{partition} can't be filtered: {error}; read it without a filter, or from a later offset"
        ),
    )
}

fn costly(origin: &Origin<'_>, offset: u64, why: TooCostly) -> WireError {
    let Origin { topic, partition } = origin;
    let (what, instead) = match why {
        TooCostly::Work => ("is too large for so long a filter", "shorten it"),
        TooCostly::Json => (
            "has a value too long to be read as JSON",
            "ask for size(value) before json",
        ),
        TooCostly::Pattern => (
            "has a text too long for matches()",
            "ask for its size() before, or use contains()",
        ),
        TooCostly::Fault => ("makes the filter fail", "write it otherwise"),
    };
    WireError::new(
        ErrorCode::FilterTooCostly,
        format!(
            "the record at offset {offset} of {topic}/{partition} {what}; {instead}, or read without a filter, or from a later offset"
        ),
    )
}
