//! Delivery of a batch's outcome to all waiters for its records, through one shared state per batch.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::record::RecordMetadata;

#[derive(Debug)]
pub(super) struct Completion {
    partition: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Waiting(Vec<Waker>),
    Done(Result<u64>),
    /// Its records were routed again; the new place of each.
    Moved(Vec<BatchSlot>),
}

/// One record of a batch.
#[derive(Debug, Clone)]
pub(super) struct BatchSlot {
    pub completion: Arc<Completion>,
    pub index: u32,
}

impl BatchSlot {
    /// Place of a record that failed.
    pub fn failed(partition: u32, error: Error) -> BatchSlot {
        let completion = Completion::new(partition);
        completion.settle(Err(error));
        BatchSlot {
            completion,
            index: 0,
        }
    }
}

impl Completion {
    pub fn new(partition: u32) -> Arc<Completion> {
        Arc::new(Completion {
            partition,
            state: Mutex::new(State::Waiting(Vec::new())),
        })
    }

    /// Ends the batch with its base offset or an error. Only the first call counts.
    pub fn settle(&self, result: Result<u64>) {
        self.finish(State::Done(result));
    }

    /// Records the new place of each record.
    pub fn move_to(&self, places: Vec<BatchSlot>) {
        self.finish(State::Moved(places));
    }

    pub fn is_settled(&self) -> bool {
        !matches!(*self.state.lock(), State::Waiting(_))
    }

    fn finish(&self, end: State) {
        let waiting = {
            let mut state = self.state.lock();
            match &mut *state {
                State::Waiting(wakers) => {
                    let wakers = std::mem::take(wakers);
                    *state = end;
                    wakers
                }
                State::Done(_) | State::Moved(_) => return,
            }
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Pending acknowledgement of a record. As a future it completes when the record is acknowledged or has
/// failed permanently. Dropping it has no effect on the record.
///
/// ```no_run
/// # async fn example(producer: ropewalk_client::Producer) -> ropewalk_client::Result<()> {
/// use ropewalk_client::Record;
/// let pending = producer.send(Record::new().key("k").value("v")).await?;
/// let metadata = pending.await?;
/// println!("partition {}, offset {}", metadata.partition, metadata.offset);
/// # Ok(())
/// # }
/// ```
#[must_use = "only the pending acknowledgement tells if the record was published"]
pub struct PendingAck {
    place: BatchSlot,
    timestamp_ms: i64,
    /// Index of its waker among those of the batch.
    waker: Option<usize>,
}

impl PendingAck {
    pub(super) fn new(place: BatchSlot, timestamp_ms: i64) -> PendingAck {
        PendingAck {
            place,
            timestamp_ms,
            waker: None,
        }
    }

    /// Follows the record one step; `None` if it has moved to another batch.
    fn step(&mut self, context: &Context<'_>) -> Option<Poll<Result<RecordMetadata>>> {
        let completion = self.place.completion.clone();
        let mut state = completion.state.lock();
        match &mut *state {
            State::Waiting(wakers) => {
                match self.waker.and_then(|slot| wakers.get_mut(slot)) {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => {
                        self.waker = Some(wakers.len());
                        wakers.push(context.waker().clone());
                    }
                }
                Some(Poll::Pending)
            }
            State::Done(Ok(base_offset)) => Some(Poll::Ready(Ok(RecordMetadata {
                partition: completion.partition,
                offset: base_offset.saturating_add(u64::from(self.place.index)),
                timestamp_ms: self.timestamp_ms,
            }))),
            State::Done(Err(error)) => Some(Poll::Ready(Err(error.clone()))),
            State::Moved(places) => {
                let next = places.get(self.place.index as usize).cloned();
                self.waker = None;
                match next {
                    Some(place) => {
                        self.place = place;
                        None
                    }
                    None => Some(Poll::Ready(Err(lost()))),
                }
            }
        }
    }
}

impl Future for PendingAck {
    type Output = Result<RecordMetadata>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<RecordMetadata>> {
        loop {
            if let Some(end) = self.step(context) {
                return end;
            }
        }
    }
}

impl fmt::Debug for PendingAck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAck")
            .field("partition", &self.place.completion.partition)
            .finish_non_exhaustive()
    }
}

/// Waits for all records of a batch, in all batches to which they moved. Returns the first failure.
pub(super) async fn all_settled(completion: Arc<Completion>) -> Result<()> {
    let mut left = vec![completion];
    let mut result = Ok(());
    while let Some(completion) = left.pop() {
        let first = BatchSlot {
            completion: completion.clone(),
            index: 0,
        };
        let ended = PendingAck::new(first, 0).await.map(|_| ());
        match &*completion.state.lock() {
            State::Moved(places) => {
                for place in places {
                    let known = |other: &Arc<Completion>| Arc::ptr_eq(other, &place.completion);
                    if !left.iter().any(known) {
                        left.push(place.completion.clone());
                    }
                }
            }
            State::Done(_) | State::Waiting(_) => result = result.and(ended),
        }
    }
    result
}

fn lost() -> Error {
    super::closed().with_outcome_unknown(true)
}
