//! Deadlines of a lane: the delivery timeout of records, the answer timeout of nodes, and the next wake-up.

use std::time::Duration;

use tokio::time::Instant;

use super::in_flight::At;
use super::partition_sender::PartitionSender;
use crate::error::{Error, ErrorKind};

/// Wake-up interval of an idle lane.
const IDLE: Duration = Duration::from_secs(3600);

impl PartitionSender {
    /// Fails records whose delivery timeout is over, and gives up a stream whose node does not answer.
    pub fn expire(&mut self, now: Instant) {
        let settings = &self.shared.settings;
        let (delivery_timeout, answer_timeout) =
            (settings.delivery_timeout, settings.answer_timeout);
        while let Some(first) = self.flights.first() {
            if now < first.batch.since + delivery_timeout {
                break;
            }
            let error = self.undelivered();
            if let Some(first) = self.flights.take_first() {
                let (base_sequence, maybe_written) = (first.base_sequence, first.maybe_written());
                first.fail(&error);
                self.close_gap(base_sequence, maybe_written, &error);
            }
        }
        while self
            .gathered
            .oldest()
            .is_some_and(|since| now >= since + delivery_timeout)
        {
            let error = self.undelivered();
            match self.gathered.take_oldest() {
                Some(open) => open.batch.fail(&error),
                None => break,
            }
        }
        let silent = self
            .flights
            .oldest_sent()
            .is_some_and(|since| now >= since + answer_timeout);
        if let (true, Some(link)) = (silent, &self.link) {
            link.give_up();
            for flight in self.flights.iter_mut() {
                if let At::Sent { since, .. } = &mut flight.at {
                    *since = now;
                }
            }
        }
    }

    fn undelivered(&self) -> Error {
        let within = self.shared.settings.delivery_timeout;
        let why = match &self.last_error {
            Some(error) => format!("; a try ended with: {error}"),
            None => String::new(),
        };
        Error::new(
            ErrorKind::Timeout,
            format!(
                "a record was not acknowledged by {} within {within:?}{why}",
                self.of
            ),
        )
    }

    /// Time of the next wake-up.
    pub fn wake_at(&self, now: Instant) -> Instant {
        let settings = &self.shared.settings;
        let mut at = now + IDLE;
        if let Some(first) = self.flights.first() {
            at = at.min(first.batch.since + settings.delivery_timeout);
        }
        if let Some(since) = self.flights.oldest_sent() {
            at = at.min(since + settings.answer_timeout);
        }
        if let Some(since) = self.gathered.oldest() {
            at = at.min(since + settings.delivery_timeout);
        }
        if self.halted || self.held || self.order.is_some() || self.errand.is_some() {
            return at;
        }
        if now < self.resume_at {
            return at.min(self.resume_at);
        }
        match self.gathered.due(now, self.flights.is_empty()) {
            // A batch that is already due waits for something else.
            Some(due) if due > now && self.has_room() => at.min(due),
            _ => at,
        }
    }
}
