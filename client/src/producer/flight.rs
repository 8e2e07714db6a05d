//! A batch from its first send to its end, and what the end of one means for those behind it.

use std::collections::VecDeque;

use bytes::Bytes;
use ropewalk_proto::batch::BatchView;
use ropewalk_proto::error::{ErrorCode, Retry};
use tokio::time::Instant;

use super::batch::{Batch, Open};
use super::identity::{Identity, sequence_after};
use crate::error::{Error, ErrorKind, Result};

/// A batch with its place in the producer's sequence.
#[derive(Debug)]
pub(super) struct Flight {
    pub batch: Batch,
    pub bytes: Bytes,
    pub count: u32,
    pub base_sequence: i32,
    pub at: At,
    /// Times its partition called it too large.
    pub tries_too_large: u32,
}

/// Where a batch is.
#[derive(Debug)]
pub(super) enum At {
    /// Here, to be sent.
    Home,
    /// Under way.
    Sent { request_id: u64, since: Instant },
    /// Back, unwritten as far as this try goes.
    Refused(Error),
    /// Acknowledged, while one before it is not.
    Done,
}

impl Flight {
    /// Finishes an open batch under a sequence number.
    pub fn new(open: Open, identity: Identity, base_sequence: i32) -> Flight {
        let Open { batch, mut builder } = open;
        let count = u32::try_from(builder.record_count()).unwrap_or(u32::MAX);
        builder.set_producer(identity.id, identity.epoch, base_sequence);
        Flight {
            batch,
            bytes: builder.build(),
            count,
            base_sequence,
            at: At::Home,
            tries_too_large: 0,
        }
    }

    pub fn is_sent(&self) -> bool {
        matches!(self.at, At::Sent { .. })
    }

    /// Whether it may have been written.
    pub fn maybe_written(&self) -> bool {
        self.batch.maybe_written || self.is_sent()
    }

    /// Fails it for good, unless it is acknowledged.
    pub fn fail(mut self, error: &Error) {
        self.batch.maybe_written = self.maybe_written();
        self.batch.fail(error);
    }
}

/// What to do when all batches in flight have come back and the first of them was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Send all again, as they are.
    SendAgain,
    /// The keys belong elsewhere by now, or there is another topic.
    RouteAgain,
    /// Nobody remembers this producer: go on in a new epoch.
    NewEpoch,
    /// The first is larger than the topic takes by now.
    Fit,
    /// One record of the first can't be written, the others can.
    FailRecord(u32),
    /// The first can't be written, the others can.
    FailFirst,
    /// The first was written long ago, where is not known; the others go on.
    FirstIsWritten,
    /// This producer must not write any more.
    Stop,
}

impl Remedy {
    pub fn of(error: &Error) -> Remedy {
        match error.kind() {
            ErrorKind::Cluster(ErrorCode::StaleRing | ErrorCode::TopicRecreated) => {
                Remedy::RouteAgain
            }
            ErrorKind::Cluster(ErrorCode::UnknownProducer) => Remedy::NewEpoch,
            ErrorKind::Cluster(ErrorCode::ProducerFenced) => Remedy::Stop,
            ErrorKind::Cluster(ErrorCode::DuplicateSequence) => Remedy::FirstIsWritten,
            ErrorKind::Cluster(ErrorCode::TooLarge) => Remedy::Fit,
            ErrorKind::Cluster(code) if code.retry() == Retry::Never => {
                error.record().map_or(Remedy::FailFirst, Remedy::FailRecord)
            }
            ErrorKind::Cluster(_)
            | ErrorKind::Unreachable
            | ErrorKind::Tls
            | ErrorKind::Timeout => Remedy::SendAgain,
            _ => Remedy::FailFirst,
        }
    }
}

/// The batches of one partition in flight, in the order of their sequence, from the first that is
/// not acknowledged on. Those acknowledged behind it keep their places: so its distance to the newest
/// is bounded, and the partition still remembers it when it comes again.
#[derive(Debug, Default)]
pub(super) struct Flights {
    queue: VecDeque<Flight>,
}

impl Flights {
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Adds a batch behind the others, in sequence.
    pub fn push(&mut self, flight: Flight) {
        if let Some(last) = self.queue.back() {
            let next = sequence_after(last.base_sequence, last.count);
            assert_eq!(
                flight.base_sequence, next,
                "batches go in the order of their sequence"
            );
        }
        self.queue.push_back(flight);
    }

    pub fn first(&self) -> Option<&Flight> {
        self.queue.front()
    }

    pub fn first_mut(&mut self) -> Option<&mut Flight> {
        self.queue.front_mut()
    }

    /// Puts others in the place of each.
    pub fn replace(&mut self, others: impl FnMut(Flight) -> Vec<Flight>) {
        let queue = std::mem::take(&mut self.queue);
        self.queue = queue.into_iter().flat_map(others).collect();
    }

    pub fn take_first(&mut self) -> Option<Flight> {
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

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Flight> {
        self.queue.iter_mut()
    }

    pub fn any_sent(&self) -> bool {
        self.queue.iter().any(Flight::is_sent)
    }

    /// When the request that waits longest was sent.
    pub fn oldest_sent(&self) -> Option<Instant> {
        let sent = self.queue.iter().filter_map(|flight| match flight.at {
            At::Sent { since, .. } => Some(since),
            _ => None,
        });
        sent.min()
    }

    /// Notes the answer to a request. False if it is nobody's any more.
    pub fn answered(&mut self, request_id: u64, answer: Result<u64>) -> bool {
        let asked = |flight: &Flight| matches!(flight.at, At::Sent { request_id: id, .. } if id == request_id);
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

    /// Once all are back: makes them ready to be sent, and returns what the first was told.
    pub fn bring_home(&mut self) -> Option<Error> {
        let mut first = None;
        for flight in &mut self.queue {
            if let At::Refused(error) = &mut flight.at {
                first.get_or_insert_with(|| error.clone());
                flight.at = At::Home;
            }
        }
        first
    }

    /// Fails those that may have been written: what follows can't wait to learn whether they were.
    pub fn give_up_unknown(&mut self, error: &Error) {
        for flight in std::mem::take(&mut self.queue) {
            if flight.maybe_written() || matches!(flight.at, At::Done) {
                flight.fail(error);
            } else {
                self.queue.push_back(flight);
            }
        }
    }

    /// Takes out those the ring routed here; none is under way. Those that may have been written can't
    /// go elsewhere, and fail; says whether there were any.
    pub fn surrender(&mut self, in_doubt: &Error) -> (Vec<Flight>, bool) {
        assert!(!self.any_sent(), "what is under way can't go elsewhere");
        let mut leaving = Vec::new();
        let mut doubted = false;
        self.queue.retain(|flight| !matches!(flight.at, At::Done));
        for flight in std::mem::take(&mut self.queue) {
            if flight.batch.ring_version() == 0 {
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

    /// Fails all.
    pub fn give_up(&mut self, error: &Error) {
        for flight in std::mem::take(&mut self.queue) {
            flight.fail(error);
        }
    }

    /// Gives all a place in the sequence, from `next` on; none of them may have been written.
    /// Returns the number after the last.
    pub fn renumber(&mut self, identity: Identity, mut next: i32) -> i32 {
        self.queue.retain(|flight| !matches!(flight.at, At::Done));
        for flight in &mut self.queue {
            assert!(
                !flight.maybe_written(),
                "a written batch keeps its sequence"
            );
            flight.base_sequence = next;
            // What this client built itself has the form of a batch.
            if let Ok(view) = BatchView::trusted(flight.bytes.clone()) {
                flight.bytes = view.with_producer(identity.id, identity.epoch, next);
            }
            next = sequence_after(next, flight.count);
        }
        next
    }
}
