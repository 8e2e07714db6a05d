//! Accumulator of one partition's records, until their batch is full or due.
//!
//! Answers set the pace. With nothing in flight, a batch is due at once. Behind a batch in flight, records gather
//! until an answer comes: the slower the cluster, the larger the batches. A `linger` delays both.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_proto::batch::{BatchError, Compression};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::batch::{Choice, NewRecord, OpenBatch};
use super::memory::MemoryPermit;
use super::pending::{BatchSlot, Completion};
use super::rules::Rules;
use crate::error::{Error, ErrorKind, Result};

/// Maximum time for which records gather without an answer, unless `linger` is longer. It is above the time of an
/// answer even while the nodes are saturated, so that answers set the pace and not this clock. It takes effect
/// where answers are late, as over a slow link: several batches are in flight there, and a record waits no longer.
const ANSWER_WAIT: Duration = Duration::from_millis(10);

/// Parameters of batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchConfig {
    pub compression: Compression,
    /// Maximum size of a batch before compression, within the limit of the topic.
    pub batch_bytes: usize,
    /// Minimum time for which a batch that is not full waits for more records.
    pub linger: Duration,
}

/// The accumulated records of one partition.
#[derive(Debug)]
pub(super) struct Accumulator {
    partition: u32,
    shape: BatchConfig,
    rules: Arc<Rules>,
    state: Mutex<State>,
    /// Wakes the lane when there is something new.
    pub changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    open: Option<OpenBatch>,
    /// A batch came back acknowledged since the open one began.
    answered: bool,
    /// The last batch left with nothing in flight and no answer before it, and has no answer yet.
    alone: bool,
    full: VecDeque<OpenBatch>,
    /// All batches that may be unsettled, the oldest first.
    unsettled: VecDeque<Arc<Completion>>,
    closed: Option<Error>,
    lane_runs: bool,
}

/// Result of a push.
#[derive(Debug)]
pub(super) struct Pushed {
    pub place: BatchSlot,
    /// No lane runs for this partition yet.
    pub lane_needed: bool,
}

impl Accumulator {
    pub fn new(partition: u32, shape: BatchConfig, rules: Arc<Rules>) -> Accumulator {
        Accumulator {
            partition,
            shape,
            rules,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Adds a record to the open batch, or to a new one.
    pub fn push(
        &self,
        record: &NewRecord,
        choice: Choice,
        memory: &mut MemoryPermit,
    ) -> Result<Pushed> {
        let mut state = self.state.lock();
        let before = (state.full.len(), state.open.is_some());
        let place = self.place(&mut state, record, choice, memory)?;
        let lane_needed = !std::mem::replace(&mut state.lane_runs, true);
        if (state.full.len(), state.open.is_some()) != before {
            self.changed.notify_one();
        }
        Ok(Pushed { place, lane_needed })
    }

    /// Adds a record without a key, unless it is the next partition's turn. Such records stay with a partition until
    /// its batch is full or leaves. If the batch left alone, they gather behind it for another one: else each idle
    /// partition would get a batch of one record.
    pub fn push_keyless(
        &self,
        record: &NewRecord,
        choice: Choice,
        memory: &mut MemoryPermit,
    ) -> Result<Option<BatchSlot>> {
        let mut state = self.state.lock();
        let pushed = state.open_for(choice).map(|open| open.push(record, memory));
        match pushed {
            Some(Ok(Some(place))) => Ok(Some(place)),
            Some(Ok(None)) => {
                state.seal();
                self.changed.notify_one();
                Ok(None)
            }
            None if state.alone && state.open.is_none() => {
                let place = self.place(&mut state, record, choice, memory)?;
                self.changed.notify_one();
                Ok(Some(place))
            }
            Some(Err(_)) | None => Ok(None),
        }
    }

    fn place(
        &self,
        state: &mut State,
        record: &NewRecord,
        choice: Choice,
        memory: &mut MemoryPermit,
    ) -> Result<BatchSlot> {
        if let Some(error) = &state.closed {
            return Err(error.clone());
        }
        if let Some(open) = state.open_for(choice)
            && let Ok(Some(place)) = open.push(record, memory)
        {
            return Ok(place);
        }
        let now = record.since.unwrap_or_else(Instant::now);
        let most = self.rules.max_batch_bytes();
        let mut open = self.begin(choice, self.shape.batch_bytes.min(most), now);
        let placed = match open.push(record, memory) {
            Err(BatchError::RecordTooLarge { .. }) => {
                // The record is alone in its batch.
                open = self.begin(choice, most, now);
                open.push(record, memory)
            }
            placed => placed,
        };
        match placed {
            Ok(Some(place)) => {
                state.seal();
                state.admit(open);
                Ok(place)
            }
            Ok(None) => Err(Error::new(
                ErrorKind::TooLarge,
                "an empty batch took no record",
            )),
            Err(error) => Err(Error::new(ErrorKind::TooLarge, error.to_string())),
        }
    }

    fn begin(&self, choice: Choice, max_bytes: usize, now: Instant) -> OpenBatch {
        OpenBatch::new(
            self.partition,
            choice,
            self.shape.compression,
            max_bytes,
            now,
        )
    }

    /// The next batch to send: the oldest full one, or the open one if it is due. `idle` is true if none of the
    /// partition is in flight.
    pub fn take(&self, now: Instant, idle: bool) -> Option<OpenBatch> {
        let mut state = self.state.lock();
        if let Some(full) = state.full.pop_front() {
            return Some(full);
        }
        let wait = self.wait(idle || state.answered);
        let open = state.open.take_if(|open| now >= open.batch.since + wait)?;
        state.alone = idle && !state.answered;
        Some(open)
    }

    /// The oldest batch, due or not.
    pub fn take_oldest(&self) -> Option<OpenBatch> {
        let mut state = self.state.lock();
        let full = state.full.pop_front();
        full.or_else(|| state.open.take())
    }

    /// Time at which the open batch is due; `now` if a full one waits. `idle` is true if none of the partition is
    /// in flight.
    pub fn due(&self, now: Instant, idle: bool) -> Option<Instant> {
        let state = self.state.lock();
        if !state.full.is_empty() {
            return Some(now);
        }
        let open = state.open.as_ref()?;
        Some(open.batch.since + self.wait(idle || state.answered))
    }

    /// Time for which a batch gathers. `free` is true if it waits for no answer.
    fn wait(&self, free: bool) -> Duration {
        match free {
            true => self.shape.linger,
            false => self.shape.linger.max(ANSWER_WAIT),
        }
    }

    /// Records that a batch in flight was acknowledged: the open one waits for no other answer.
    pub fn answered(&self) {
        let mut state = self.state.lock();
        state.answered = state.open.is_some();
        state.alone = false;
    }

    /// Time of the oldest record.
    pub fn oldest(&self) -> Option<Instant> {
        let state = self.state.lock();
        let oldest = state.full.front().or(state.open.as_ref())?;
        Some(oldest.batch.since)
    }

    /// Seals the open batch, and returns all unsettled batches.
    pub fn flush(&self) -> Vec<Arc<Completion>> {
        let mut state = self.state.lock();
        state.seal();
        state.forget_settled();
        self.changed.notify_one();
        let unsettled = state.unsettled.iter();
        unsettled
            .filter(|completion| !completion.is_settled())
            .cloned()
            .collect()
    }

    /// Adds batches that were split off another one, so that a flush waits for them.
    pub fn adopt(&self, made: &[OpenBatch]) {
        let mut state = self.state.lock();
        state.forget_settled();
        let completions = made.iter().map(|open| open.batch.completion.clone());
        state.unsettled.extend(completions);
    }

    /// Rejects further records, and fails the accumulated ones.
    pub fn close(&self, error: &Error) {
        let gathered = {
            let mut state = self.state.lock();
            state.seal();
            state.alone = false;
            state.closed = Some(error.clone());
            std::mem::take(&mut state.full)
        };
        for open in gathered {
            open.batch.fail(error);
        }
    }

    /// Removes the batches that were routed by the ring.
    pub fn reclaim(&self) -> Vec<OpenBatch> {
        let mut state = self.state.lock();
        state.seal();
        let by_ring = |open: &OpenBatch| open.batch.ring_version() != 0;
        let gathered = std::mem::take(&mut state.full);
        let (leaving, staying) = gathered.into_iter().partition::<Vec<_>, _>(by_ring);
        state.full.extend(staying);
        leaving
    }
}

impl State {
    fn open_for(&mut self, choice: Choice) -> Option<&mut OpenBatch> {
        self.open
            .as_mut()
            .filter(|open| open.batch.choice == choice)
    }

    fn seal(&mut self) {
        self.full.extend(self.open.take());
    }

    fn admit(&mut self, open: OpenBatch) {
        self.forget_settled();
        self.unsettled.push_back(open.batch.completion.clone());
        self.open = Some(open);
        self.answered = false;
    }

    fn forget_settled(&mut self) {
        while self
            .unsettled
            .front()
            .is_some_and(|oldest| oldest.is_settled())
        {
            self.unsettled.pop_front();
        }
    }
}
