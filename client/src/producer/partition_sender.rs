//! The task of one partition: sends batches that are full or due to the leader, in order. After a refusal, it
//! waits until all batches in flight have returned, then sends all again from the refused one on.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ropewalk_proto::error::{ErrorCode, Retry};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use ropewalk_proto::trace::TraceContext;
use ropewalk_proto::v1;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::accumulator::Accumulator;
use super::closed;
use super::handle::{Handle, Order, ReclaimedBatch};
use super::identity::{self, Identity, sequence_after};
use super::in_flight::{At, InFlightBatch, InFlightBatches, RetryAction};
use super::produce_stream::{Answer, Answers, ProduceStream};
use super::shared::Shared;
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::{Leader, PartitionId, Topic};
use crate::telling::more_telling;

/// Starts the lane of a partition.
pub(super) fn start(shared: Arc<Shared>, handle: &Handle, of: PartitionId, identity: Identity) {
    let Some(orders) = handle.to_hear.lock().take() else {
        return;
    };
    let (answers, inbox) = mpsc::unbounded_channel();
    let lane = PartitionSender {
        of,
        gathered: handle.gathered.clone(),
        identity,
        next_sequence: 0,
        flights: InFlightBatches::default(),
        link: None,
        answers,
        inbox,
        orders,
        order: None,
        held: false,
        errand: None,
        halted: false,
        gap: None,
        new_epoch: false,
        ended: false,
        resume_at: Instant::now(),
        backoff: Backoff::new(shared.inner.draw()),
        last_error: None,
        shared,
    };
    tokio::spawn(lane.run());
}

/// State of the task, which no other task sees.
pub(super) struct PartitionSender {
    pub shared: Arc<Shared>,
    pub of: PartitionId,
    pub gathered: Arc<Accumulator>,
    pub identity: Identity,
    pub next_sequence: i32,
    pub flights: InFlightBatches,
    pub link: Option<Arc<ProduceStream>>,
    answers: Answers,
    inbox: mpsc::UnboundedReceiver<Answer>,
    orders: mpsc::Receiver<Order>,
    /// Order to carry out once nothing is in flight.
    pub order: Option<Order>,
    /// Its batches belong elsewhere, or to a topic that is gone. Nothing is sent until that is settled.
    pub held: bool,
    pub errand: Option<BoxFuture<'static, LookupResult>>,
    /// A batch was refused: nothing is sent until all batches in flight have returned.
    pub halted: bool,
    /// Sequence of the first batch that failed unwritten before others under way. They get new numbers once they
    /// have returned.
    gap: Option<i32>,
    /// Nothing can be sent until there is a new epoch.
    new_epoch: bool,
    /// The lane was ordered to end, and has ended.
    ended: bool,
    pub resume_at: Instant,
    pub backoff: Backoff,
    /// Most telling error since the last success.
    pub last_error: Option<Error>,
}

/// Result of an errand.
pub(super) enum LookupResult {
    Leader(Result<Leader>),
    Identity(Result<Identity>),
    Ring(Result<Arc<Topic>>),
    /// The topic, looked up after a batch was rejected as too large.
    Rules(Result<Arc<Topic>>, Error),
}

impl PartitionSender {
    async fn run(mut self) {
        loop {
            let now = Instant::now();
            self.expire(now);
            self.advance(now);
            if self.ended {
                return;
            }
            let wake_at = self.wake_at(now);
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => break,
                Some(answer) = self.inbox.recv() => self.take_answers(answer),
                Some(order) = self.orders.recv() => self.order = Some(order),
                found = returned(&mut self.errand) => self.take_found(found),
                () = self.gathered.changed.notified() => {
                    if self.flights.is_empty() {
                        // Other tasks that are ready to send share the batch, which leaves at once.
                        yield_now().await;
                    }
                }
                () = sleep_until(wake_at) => {}
            }
        }
        let end = self.shared.check_open().err().unwrap_or_else(closed);
        self.flights.give_up(&end);
        self.gathered.close(&end);
    }

    /// Takes all steps that need no waiting.
    fn advance(&mut self, now: Instant) {
        if self.halted && !self.flights.any_sent() {
            self.resolve(now);
        }
        if !self.flights.any_sent()
            && let Some(order) = self.order.take()
        {
            self.obey(order);
        }
        if self.halted
            || self.held
            || self.ended
            || self.order.is_some()
            || now < self.resume_at
            || self.errand.is_some()
        {
            return;
        }
        if self.new_epoch {
            self.renew();
        } else if self.link.as_ref().is_some_and(|link| !link.is_broken()) {
            self.send(now);
        } else if !self.flights.any_sent() && self.has_work(now) {
            self.find_leader();
        }
    }

    fn has_work(&self, now: Instant) -> bool {
        !self.flights.is_empty() || self.is_due(now)
    }

    fn is_due(&self, now: Instant) -> bool {
        let due = self.gathered.due(now, self.flights.is_empty());
        due.is_some_and(|due| due <= now)
    }

    pub fn has_room(&self) -> bool {
        self.flights.len() < self.shared.settings.in_flight
    }

    fn send(&mut self, now: Instant) {
        while self.has_room() {
            let Some(open) = self.gathered.take(now, self.flights.is_empty()) else {
                break;
            };
            let flight = InFlightBatch::new(open, self.identity, self.next_sequence);
            self.next_sequence = sequence_after(self.next_sequence, flight.count);
            self.flights.push(flight);
        }
        let Some(link) = &self.link else { return };
        // Batches split off a larger one may be more than a partition remembers.
        for flight in self.flights.iter_mut().take(self.shared.settings.in_flight) {
            if !matches!(flight.at, At::Queued) {
                continue;
            }
            let trace = flight.batch.trace.as_deref();
            let request = v1::ProduceRequest {
                request_id: 0,
                topic: self.shared.topic.clone(),
                topic_id: self.of.topic_id,
                partition: self.of.partition,
                ring_version: flight.batch.ring_version(),
                batch: flight.bytes.clone(),
                traceparent: trace.map(ToString::to_string).unwrap_or_default(),
                tracestate: trace.and_then(TraceContext::state).unwrap_or("").to_owned(),
            };
            match link.send(request, &self.answers) {
                Some(request_id) => {
                    flight.at = At::Sent {
                        request_id,
                        since: now,
                    }
                }
                // The batches sent earlier return soon, and this one with them.
                None => break,
            }
        }
        if link.is_broken() && !self.flights.any_sent() {
            self.find_leader();
        }
    }

    fn take_answers(&mut self, first: Answer) {
        let mut next = Some(first);
        while let Some(answer) = next {
            self.take_answer(answer);
            next = self.inbox.try_recv().ok();
        }
    }

    fn take_answer(&mut self, answer: Answer) {
        let outcome = match answer.response {
            Ok(v1::ProduceResponse {
                error: Some(error), ..
            }) => Err(self.heed(error)),
            Ok(response) => Ok(response.base_offset),
            Err(error) => Err(error),
        };
        let refused = outcome.is_err();
        if self.flights.answered(answer.request_id, outcome) {
            self.halted |= refused;
            if !refused {
                self.gathered.answered();
                self.backoff.succeeded();
                self.last_error = None;
            }
        }
    }

    /// Applies the leader hint of an error.
    fn heed(&self, error: v1::Error) -> Error {
        if let (Some(link), Some(leader)) = (&self.link, &error.leader) {
            let metadata = &self.shared.inner.metadata;
            metadata.not_leader(&self.of, link.leader.node_id, Some(leader));
        }
        ropewalk_proto::error::WireError::from(error).into()
    }

    /// Handles the refusal of the first batch, after all batches have returned.
    fn resolve(&mut self, now: Instant) {
        self.halted = false;
        let refused = self.flights.bring_home();
        if let Some(base_sequence) = self.gap.take() {
            // Those that were under way were refused for the gap before them.
            return self.number_again(base_sequence);
        }
        let Some(error) = refused else {
            return;
        };
        tracing::debug!(partition = %self.of, %error, "batches came back");
        match RetryAction::of(&error) {
            RetryAction::SendAgain => {
                self.new_epoch |= is_planted(PlantedBug::RetryAsNew);
                self.later(&error, now);
            }
            RetryAction::RouteAgain => {
                self.last_error = Some(error);
                self.ask_for_ring();
            }
            RetryAction::Fit => self.ask_for_rules(error),
            RetryAction::FailRecord(record) => {
                self.fail_record(record, &error);
                self.last_error = None;
                // Lets the producer reject the next such record before it is sent.
                let shared = self.shared.clone();
                tokio::spawn(async move { shared.ask_for_rules().await });
            }
            RetryAction::FailFirst => self.fail_first(&error),
            RetryAction::NewEpoch => self.begin_anew(&error),
            RetryAction::FirstIsWritten => {
                if let Some(flight) = self.flights.take_first() {
                    flight.batch.settle(Err(error.with_outcome_unknown(true)));
                }
            }
            RetryAction::Stop => {
                self.flights.give_up(&error);
                self.shared.fail(error);
            }
        }
        if self.flights.is_empty() && self.gathered.oldest().is_none() {
            self.last_error = None;
        }
    }

    /// Sends all batches again after a pause, through another node if that may help.
    fn later(&mut self, error: &Error, now: Instant) {
        let stay = matches!(error.kind(), ErrorKind::Cluster(code)
            if code.retry() == Retry::Later && code != ErrorCode::Timeout);
        if !stay && let Some(link) = self.link.take() {
            let metadata = &self.shared.inner.metadata;
            metadata.not_leader(&self.of, link.leader.node_id, None);
        }
        self.last_error = Some(more_telling(self.last_error.take(), error.clone()));
        self.resume_at = now + self.backoff.pause();
    }

    pub fn fail_first(&mut self, error: &Error) {
        let Some(first) = self.flights.take_first() else {
            return;
        };
        let (base_sequence, maybe_written) = (first.base_sequence, first.maybe_written());
        first.fail(error);
        let broken = error.code() == Some(ErrorCode::OutOfOrderSequence);
        self.close_gap(base_sequence, maybe_written || broken, error);
    }

    /// Handles the gap after the failed batch at `base_sequence`. The next batch takes its number, unless the
    /// failed one may still be written.
    pub fn close_gap(&mut self, base_sequence: i32, in_doubt: bool, error: &Error) {
        if in_doubt {
            self.begin_anew(error);
        } else {
            self.number_again(base_sequence);
        }
    }

    /// Numbers the batches behind one that was not written, so that none of them was; those under way return
    /// first. An earlier try without an answer may still arrive, and would then be written beside the later one. A
    /// new epoch keeps it out.
    pub fn number_again(&mut self, base_sequence: i32) {
        if self.flights.any_sent() {
            self.halted = true;
            self.gap.get_or_insert(base_sequence);
        } else if self.flights.any_maybe_written() {
            self.new_epoch = true;
        } else {
            self.next_sequence = self.flights.renumber(self.identity, base_sequence);
        }
    }

    /// Continues in a new epoch, which fences batches of the old one. Batches that may already be in the log
    /// fail, since they must not be written again.
    fn begin_anew(&mut self, error: &Error) {
        self.flights.give_up_unknown(error);
        self.halted = false;
        self.gap = None;
        self.new_epoch = true;
    }

    /// Carries out an order, while nothing is in flight.
    fn obey(&mut self, order: Order) {
        self.held = false;
        // A lookup of the ring that returns behind its order would hold the lane again, and no further order would
        // come. Any other lookup starts again if it is still needed.
        self.errand = None;
        match order {
            // The caller may have ended with the producer; then dropping the batches reports that.
            Order::Reclaim(taker) => drop(taker.send(self.reclaim())),
            Order::End(why, done) => {
                self.flights.give_up(&why);
                self.gathered.close(&why);
                self.ended = true;
                let _ = done.send(());
            }
        }
    }

    /// Removes the batches that the ring routed here, and fails those that may have been written.
    fn reclaim(&mut self) -> Vec<ReclaimedBatch> {
        let partition = self.of.partition;
        let in_doubt = Error::new(
            ErrorKind::Cluster(ErrorCode::StaleRing),
            "the topic's keys were mapped anew while the answer to an earlier try was lost; read the topic to see whether the record is there",
        );
        let next = self.flights.first().map(|first| first.base_sequence);
        let (flown, doubted) = self.flights.reclaim(&in_doubt);
        if doubted {
            self.begin_anew(&in_doubt);
        } else if let Some(next) = next.filter(|_| !self.new_epoch) {
            self.next_sequence = self.flights.renumber(self.identity, next);
        }
        let flown = flown.into_iter().map(|flight| (flight.batch, flight.bytes));
        let gathered = self.gathered.reclaim().into_iter();
        let gathered = gathered.map(|open| (open.batch, open.builder.build()));
        let all = flown.chain(gathered);
        let all = all.map(|(batch, bytes)| ReclaimedBatch {
            partition,
            batch,
            bytes,
        });
        all.collect()
    }

    fn renew(&mut self) {
        let (inner, identity) = (self.shared.inner.clone(), self.identity);
        let errand =
            async move { LookupResult::Identity(identity::renewed(&inner, identity).await) };
        self.errand = Some(errand.boxed());
    }

    /// Looks up the topic after a node refused a batch for its ring or topic. The node may be the one that is
    /// behind.
    fn ask_for_ring(&mut self) {
        let shared = self.shared.clone();
        let errand = async move { LookupResult::Ring(shared.inner.refresh(&shared.topic).await) };
        self.errand = Some(errand.boxed());
    }

    /// Looks up the topic after a batch was rejected as too large: its limit may have been lowered.
    fn ask_for_rules(&mut self, why: Error) {
        let shared = self.shared.clone();
        let errand =
            async move { LookupResult::Rules(shared.inner.refresh(&shared.topic).await, why) };
        self.errand = Some(errand.boxed());
    }

    fn find_leader(&mut self) {
        let (inner, of) = (self.shared.inner.clone(), self.of.clone());
        let errand = async move { LookupResult::Leader(inner.leader(&of).await) };
        self.errand = Some(errand.boxed());
    }

    fn take_found(&mut self, found: LookupResult) {
        self.errand = None;
        let failed = match found {
            LookupResult::Leader(Ok(leader)) => {
                let shared = &self.shared;
                let link = shared
                    .links
                    .to(leader, &shared.inner.connections, &shared.stop);
                link.map(|link| self.link = Some(link)).err()
            }
            LookupResult::Identity(Ok(identity)) => {
                self.identity = identity;
                self.next_sequence = self.flights.begin_epoch(identity);
                self.new_epoch = false;
                None
            }
            LookupResult::Ring(Ok(topic)) if self.shared.is_newer(&topic) => {
                self.held = true;
                self.shared.ring_is_stale();
                None
            }
            LookupResult::Ring(Ok(_)) => self.last_error.take(),
            LookupResult::Leader(Err(error)) if error.code() == Some(ErrorCode::TopicRecreated) => {
                self.last_error = Some(error);
                return self.ask_for_ring();
            }
            LookupResult::Rules(Ok(topic), why) => {
                self.shared.rules.learn(&topic);
                self.fit(&why);
                None
            }
            LookupResult::Rules(Err(error), _)
            | LookupResult::Leader(Err(error))
            | LookupResult::Identity(Err(error))
            | LookupResult::Ring(Err(error)) => Some(error),
        };
        if let Some(error) = failed {
            self.last_error = Some(more_telling(self.last_error.take(), error));
            self.resume_at = Instant::now() + self.backoff.pause();
        }
    }
}

/// Waits for the errand, if there is one.
async fn returned(errand: &mut Option<BoxFuture<'static, LookupResult>>) -> LookupResult {
    match errand {
        Some(errand) => errand.await,
        None => std::future::pending().await,
    }
}
