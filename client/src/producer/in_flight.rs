//! A batch from its first send to its end, and the effect of that end on the batches behind it.

use std::collections::VecDeque;

use bytes::Bytes;
use ropewalk_proto::batch::BatchView;
use ropewalk_proto::error::{ErrorCode, Retry};
use tokio::time::Instant;

use super::batch::{Batch, OpenBatch};
use super::identity::{Identity, sequence_after};
use crate::error::{Error, ErrorKind, Result};

/// A batch with its sequence number.
#[derive(Debug)]
pub(super) struct InFlightBatch {
    pub batch: Batch,
    pub bytes: Bytes,
    pub count: u32,
    pub base_sequence: i32,
    pub at: At,
    /// Number of times its partition rejected it as too large.
    pub tries_too_large: u32,
}

/// State of a batch.
#[derive(Debug)]
pub(super) enum At {
    /// Waits to be sent.
    Queued,
    /// In flight.
    Sent { request_id: u64, since: Instant },
    /// Refused. If the outcome of the try is unknown, `maybe_written` is set.
    Refused(Error),
    /// Acknowledged, while a batch before it is not.
    Done,
}

impl InFlightBatch {
    /// Seals an open batch under a sequence number.
    pub fn new(open: OpenBatch, identity: Identity, base_sequence: i32) -> InFlightBatch {
        let OpenBatch { batch, mut builder } = open;
        let count = u32::try_from(builder.record_count()).unwrap_or(u32::MAX);
        builder.set_producer(identity.id, identity.epoch, base_sequence);
        InFlightBatch {
            batch,
            bytes: builder.build(),
            count,
            base_sequence,
            at: At::Queued,
            tries_too_large: 0,
        }
    }

    pub fn is_sent(&self) -> bool {
        matches!(self.at, At::Sent { .. })
    }

    /// Returns true if it may have been written.
    pub fn maybe_written(&self) -> bool {
        self.batch.maybe_written || self.is_sent()
    }

    /// Fails the batch permanently, unless it is acknowledged.
    pub fn fail(mut self, error: &Error) {
        self.batch.maybe_written = self.maybe_written();
        self.batch.fail(error);
    }
}

/// Action after all batches in flight have returned and the first was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryAction {
    /// Send all again, unchanged.
    SendAgain,
    /// Route again: the keys map elsewhere by now, or there is another topic.
    RouteAgain,
    /// The partition does not remember this producer: continue in a new epoch.
    NewEpoch,
    /// Split the first batch: it is larger than the topic now allows.
    Fit,
    /// Fail one record of the first batch, and send the others again.
    FailRecord(u32),
    /// Fail the first batch, and send the others again.
    FailFirst,
    /// The first batch was written long ago, at an unknown offset; the others continue.
    FirstIsWritten,
    /// Stop: this producer must not write any longer.
    Stop,
}

impl RetryAction {
    pub fn of(error: &Error) -> RetryAction {
        match error.kind() {
            ErrorKind::Cluster(ErrorCode::StaleRing | ErrorCode::TopicRecreated) => {
                RetryAction::RouteAgain
            }
            ErrorKind::Cluster(ErrorCode::UnknownProducer) => RetryAction::NewEpoch,
            ErrorKind::Cluster(ErrorCode::ProducerFenced) => RetryAction::Stop,
            ErrorKind::Cluster(ErrorCode::DuplicateSequence) => RetryAction::FirstIsWritten,
            ErrorKind::Cluster(ErrorCode::TooLarge) => RetryAction::Fit,
            ErrorKind::Cluster(code) if code.retry() == Retry::Never => error
                .record()
                .map_or(RetryAction::FailFirst, RetryAction::FailRecord),
            ErrorKind::Cluster(_)
            | ErrorKind::Unreachable
            | ErrorKind::Tls
            | ErrorKind::Timeout => RetryAction::SendAgain,
            _ => RetryAction::FailFirst,
        }
    }
}

/// The batches of one partition in flight, in sequence, from the first unacknowledged one on. Acknowledged
/// batches behind it stay in the queue. This bounds the distance from the first to the newest, so the
/// partition still remembers the first when it is sent again.
#[derive(Debug, Default)]
pub(super) struct InFlightBatches {
    queue: VecDeque<InFlightBatch>,
}

impl InFlightBatches {
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Appends a batch, in sequence.
    pub fn push(&mut self, flight: InFlightBatch) {
        if let Some(last) = self.queue.back() {
            let next = sequence_after(last.base_sequence, last.count);
            assert_eq!(
                flight.base_sequence, next,
                "batches go in the order of their sequence"
            );
        }
        self.queue.push_back(flight);
    }

    pub fn first(&self) -> Option<&InFlightBatch> {
        self.queue.front()
    }

    pub fn first_mut(&mut self) -> Option<&mut InFlightBatch> {
        self.queue.front_mut()
    }

    /// Replaces each batch by others.
    pub fn replace(&mut self, others: impl FnMut(InFlightBatch) -> Vec<InFlightBatch>) {
        let queue = std::mem::take(&mut self.queue);
        self.queue = queue.into_iter().flat_map(others).collect();
    }

    pub fn take_first(&mut self) -> Option<InFlightBatch> {
        let first = self.queue.pop_front();
        self.forget_done();
        first
    }

    fn forget_done(&mut self) {
        while self
            .queue
            .front()
            .is_some_and(|flight| matches!(flight.at, At::Done))
        {
            self.queue.pop_front();
        }
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut InFlightBatch> {
        self.queue.iter_mut()
    }

    pub fn any_sent(&self) -> bool {
        self.queue.iter().any(InFlightBatch::is_sent)
    }

    /// Send time of the oldest unanswered request.
    pub fn oldest_sent(&self) -> Option<Instant> {
        let sent = self.queue.iter().filter_map(|flight| match flight.at {
            At::Sent { since, .. } => Some(since),
            _ => None,
        });
        sent.min()
    }

    /// Records the answer to a request. Returns false if no batch waits for it any longer.
    pub fn answered(&mut self, request_id: u64, answer: Result<u64>) -> bool {
        let asked = |flight: &InFlightBatch| matches!(flight.at, At::Sent { request_id: id, .. } if id == request_id);
        let Some(index) = self.queue.iter().position(asked) else {
            return false;
        };
        match answer {
            Ok(base_offset) => {
                if let Some(flight) = self.queue.get_mut(index) {
                    flight.batch.settle(Ok(base_offset));
                    flight.at = At::Done;
                    flight.bytes = Bytes::new();
                    drop(flight.batch.release_memory());
                }
                self.forget_done();
            }
            Err(error) => {
                if let Some(flight) = self.queue.get_mut(index) {
                    flight.batch.maybe_written |= error.outcome_unknown();
                    flight.at = At::Refused(error);
                }
            }
        }
        true
    }

    /// Prepares all batches for another send, once all have returned. Returns the error of the first refused
    /// one.
    pub fn bring_home(&mut self) -> Option<Error> {
        let mut first = None;
        for flight in &mut self.queue {
            if let At::Refused(error) = &mut flight.at {
                first.get_or_insert_with(|| error.clone());
                flight.at = At::Queued;
            }
        }
        first
    }

    /// Fails the batches that may have been written: the batches behind them can't wait for the outcome.
    pub fn give_up_unknown(&mut self, error: &Error) {
        for flight in std::mem::take(&mut self.queue) {
            if flight.maybe_written() || matches!(flight.at, At::Done) {
                flight.fail(error);
            } else {
                self.queue.push_back(flight);
            }
        }
    }

    /// Removes the batches that the ring routed here; none may be in flight. Batches that may have been
    /// written can't move, and fail. Returns true if those that stay need a new epoch: a batch failed, or one
    /// that would get another sequence was or may be written.
    pub fn reclaim(&mut self, in_doubt: &Error) -> (Vec<InFlightBatch>, bool) {
        assert!(!self.any_sent(), "what is under way can't go elsewhere");
        let mut leaving = Vec::new();
        let before = self.queue.len();
        self.queue.retain(|flight| !matches!(flight.at, At::Done));
        let mut doubted = self.queue.len() < before;
        for flight in std::mem::take(&mut self.queue) {
            if flight.batch.ring_version() == 0 {
                doubted |= !leaving.is_empty() && flight.maybe_written();
                self.queue.push_back(flight);
            } else if flight.maybe_written() {
                doubted = true;
                flight.fail(in_doubt);
            } else {
                leaving.push(flight);
            }
        }
        (leaving, doubted)
    }

    /// Fails all batches.
    pub fn give_up(&mut self, error: &Error) {
        for flight in std::mem::take(&mut self.queue) {
            flight.fail(error);
        }
    }

    /// True if a batch was written, or an earlier try of one may still arrive.
    pub fn any_maybe_written(&self) -> bool {
        let written =
            |flight: &InFlightBatch| matches!(flight.at, At::Done) || flight.maybe_written();
        self.queue.iter().any(written)
    }

    /// Closes a gap before or among the batches within their epoch: numbers them from `next` on. Returns the next
    /// free sequence number.
    ///
    /// **A batch that may still arrive keeps its sequence within its epoch**: under another one it would be
    /// written twice, once for each number.
    pub fn renumber(&mut self, identity: Identity, next: i32) -> i32 {
        let mut expected = next;
        for flight in &self.queue {
            assert!(
                !matches!(flight.at, At::Done),
                "a written batch keeps its sequence"
            );
            assert!(
                flight.base_sequence == expected || !flight.maybe_written(),
                "a batch that may arrive keeps its sequence"
            );
            expected = sequence_after(expected, flight.count);
        }
        self.number(identity, next)
    }

    /// Numbers all batches in a new epoch, which keeps their earlier tries out. Returns the next free sequence
    /// number.
    pub fn begin_epoch(&mut self, identity: Identity) -> i32 {
        assert!(!self.any_sent(), "nothing is under way between two epochs");
        self.queue.retain(|flight| !matches!(flight.at, At::Done));
        self.number(identity, 0)
    }

    fn number(&mut self, identity: Identity, mut next: i32) -> i32 {
        for flight in &mut self.queue {
            flight.base_sequence = next;
            // This client built the batch, so it has the form of one.
            if let Ok(view) = BatchView::trusted(flight.bytes.clone()) {
                flight.bytes = view.with_producer(identity.id, identity.epoch, next);
            }
            next = sequence_after(next, flight.count);
        }
        next
    }
}
