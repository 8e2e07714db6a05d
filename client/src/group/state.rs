//! The partitions of a member and whose turn it is: which record comes next, and how much of the
//! memory each partition may fetch ahead into.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use super::assignment::Place;
use super::delivery::{Delivery, Ticket};
use super::part::{Part, Phase};
use super::progress::Progress;
use super::readers::Readers;
use super::shared::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::reader::Reader;
use crate::record::ConsumedRecord;

/// So many records come from one partition before another has its turn.
const STREAK: u32 = 100;

/// The settings all parts go by.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub max_in_flight: usize,
    pub memory_bytes: usize,
    /// The session, as asked for or as the coordinator has told.
    pub session: Duration,
}

#[derive(Debug)]
pub(super) struct State {
    pub parts: BTreeMap<Place, Part>,
    pub generation: u64,
    /// Topics that the subscription names and that do not exist.
    pub missing: Vec<String>,
    /// How often the coordinator wants to hear something; zero if it did not say.
    pub heartbeat: Duration,
    pub member_id: String,
    pub readers: Readers,
    pub limits: Limits,
    /// What could not be read, until the member has told of it.
    pub unreadable: BTreeMap<Place, Error>,
    /// When what the coordinator has last answered was sent: from then on the session counts.
    pub heard_at: Instant,
    /// Since when the application has left waiting what it could take.
    pub idle_since: Instant,
    pub last_life: u64,
    pub over: Over,
    pub waker: Option<Waker>,
    outstanding: usize,
    outstanding_bytes: usize,
    turn: Option<Place>,
    streak: u32,
}

/// Whether the stream goes on.
#[derive(Debug)]
pub(super) enum Over {
    No,
    Stopped,
    Failed { told: bool, error: Error },
}

impl State {
    pub fn new(readers: Readers, limits: Limits, member_id: String) -> State {
        let now = Instant::now();
        State {
            parts: BTreeMap::new(),
            generation: 0,
            missing: Vec::new(),
            heartbeat: Duration::ZERO,
            member_id,
            readers,
            limits,
            unreadable: BTreeMap::new(),
            heard_at: now,
            idle_since: now,
            last_life: 0,
            over: Over::No,
            waker: None,
            outstanding: 0,
            outstanding_bytes: 0,
            turn: None,
            streak: 0,
        }
    }

    pub fn is_full(&self) -> bool {
        self.outstanding >= self.limits.max_in_flight
            || self.outstanding_bytes >= self.limits.memory_bytes
    }

    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// A delivery is out no more.
    pub fn returned(&mut self, bytes: usize) {
        self.outstanding -= 1;
        self.outstanding_bytes -= bytes;
    }

    /// Another life of a partition.
    pub fn next_life(&mut self) -> u64 {
        self.last_life += 1;
        self.last_life
    }

    pub fn close_readers(&mut self) {
        for part in self.parts.values_mut() {
            part.stop_reading();
        }
    }

    /// Whether the application could take a record, or could if it finished with others.
    pub fn has_waiting(&self) -> bool {
        let mut parts = self.parts.values().filter(|part| !part.paused);
        parts.any(|part| matches!(&part.phase, Phase::Reading(reader) if reader.has_waiting()))
    }

    pub fn poll_parts(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<(Place, Result<ConsumedRecord>)> {
        if self.streak >= STREAK {
            self.turn = self.after_turn();
            self.streak = 0;
        }
        let begin = self.turn.map_or(Bound::Unbounded, Bound::Included);
        let end = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        for range in [(begin, Bound::Unbounded), (Bound::Unbounded, end)] {
            for (place, part) in self.parts.range_mut(range) {
                let Some(reader) = part.reader() else {
                    continue;
                };
                let polled = reader.poll_next_unpin(context);
                let position = reader.position();
                if let Poll::Ready(next) = polled {
                    self.streak = if self.turn == Some(*place) {
                        self.streak + 1
                    } else {
                        1
                    };
                    self.turn = Some(*place);
                    return Poll::Ready((*place, next.unwrap_or_else(|| Err(ended()))));
                }
                if let Some(progress) = &mut part.progress {
                    progress.skipped_to(position);
                }
            }
        }
        Poll::Pending
    }

    fn after_turn(&self) -> Option<Place> {
        let turn = self.turn?;
        let after = (Bound::Excluded(turn), Bound::Unbounded);
        let next = self.parts.range(after).next();
        next.or_else(|| self.parts.first_key_value())
            .map(|(place, _)| *place)
    }

    pub fn hand_out(
        &mut self,
        shared: &Arc<Shared>,
        place: Place,
        record: ConsumedRecord,
    ) -> Option<Delivery> {
        let part = self.parts.get_mut(&place)?;
        part.progress.as_mut()?.handed_out(record.offset);
        let bytes = record.content_bytes();
        let ticket = Ticket::new(shared.clone(), place, part.life, record.offset, bytes);
        let delivery = Delivery::new(part.name.topic.clone(), record, ticket);
        self.outstanding += 1;
        self.outstanding_bytes += bytes;
        Some(delivery)
    }

    /// Reads a partition on, from where it stopped.
    pub fn reopen(&mut self, place: Place) {
        let share = self.share_bytes();
        let Some(part) = self.parts.get_mut(&place) else {
            return;
        };
        if let Phase::Reading(reader) = &mut part.phase {
            let position = reader.position();
            **reader = self
                .readers
                .open(place.topic_id, &part.name, position, share);
        }
    }

    /// Reads a partition no longer whose topic is gone.
    pub fn gone(&mut self, place: Place) {
        if let Some(part) = self.parts.get_mut(&place) {
            part.phase = Phase::Gone;
        }
    }

    /// Tries again what was gone when it was read last; says whether there is any.
    pub fn try_gone(&mut self) -> bool {
        let mut any = false;
        for part in self.parts.values_mut() {
            if let Phase::Gone = part.phase {
                any = true;
                part.phase = match &part.progress {
                    Some(_) => Phase::Stopped,
                    None => Phase::Starting {
                        asked: false,
                        at: part.committed,
                    },
                };
            }
        }
        any
    }

    /// What one partition may fetch ahead, in bytes. In powers of two, so that one partition more
    /// does not make all begin anew.
    fn share_bytes(&self) -> usize {
        let parts = self.parts.len().max(1).next_power_of_two();
        (self.limits.memory_bytes / parts).max(1)
    }

    /// Begins to read what has a position, and gives all their share of the memory.
    pub fn begin(&mut self) {
        let share = self.share_bytes();
        let anew = self.readers.share_bytes != share;
        self.readers.share_bytes = share;
        for (place, part) in &mut self.parts {
            let from = match &part.phase {
                Phase::Reading(reader) if anew => Some(reader.position()),
                _ => part.can_begin(),
            };
            let Some(from) = from.filter(|_| matches!(self.over, Over::No)) else {
                continue;
            };
            part.progress.get_or_insert_with(|| Progress::new(from));
            let reader = self.readers.open(place.topic_id, &part.name, from, share);
            part.phase = Phase::Reading(Box::new(reader));
        }
    }
}

impl Part {
    fn reader(&mut self) -> Option<&mut Reader> {
        match &mut self.phase {
            Phase::Reading(reader) if !self.paused => Some(reader),
            _ => None,
        }
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Closed, "the reader of a partition has ended")
}
