//! What the parts of a subscription share: the member that talks to the coordinator, the stream that
//! hands records out, and the deliveries on their way. One lock, never held across an await or a
//! call of the application's.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::assignment::Place;
use super::delivery::{Delivery, Ticket};
use super::part::{Part, Phase};
use super::progress::Progress;
use super::readers::Readers;
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
    pub session: Duration,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// The member has something to look at: a partition is settled, or could not be read.
    pub attention: Notify,
    /// Counts how often partitions were taken away.
    pub taken: watch::Sender<u64>,
}

#[derive(Debug)]
pub(super) struct State {
    pub parts: BTreeMap<Place, Part>,
    pub generation: u64,
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
    over: Over,
    waker: Option<Waker>,
    outstanding: usize,
    outstanding_bytes: usize,
    turn: Option<Place>,
    streak: u32,
}

/// Whether the stream goes on.
#[derive(Debug)]
enum Over {
    No,
    Stopped,
    Failed { told: bool, error: Error },
}

impl Shared {
    pub fn new(readers: Readers, limits: Limits, member_id: String) -> Arc<Shared> {
        let now = Instant::now();
        Arc::new(Shared {
            state: Mutex::new(State {
                parts: BTreeMap::new(),
                generation: 0,
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
            }),
            attention: Notify::new(),
            taken: watch::Sender::new(0),
        })
    }

    /// Does something to the state, and has the stream look at it again.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }

    /// No more records come.
    pub fn stop(&self) {
        self.change(|state| {
            if matches!(state.over, Over::No) {
                state.over = Over::Stopped;
            }
            state.close_readers();
        });
    }

    /// No more records come, and the stream says why.
    pub fn fail(&self, error: Error) {
        self.change(|state| {
            state.over = match &state.over {
                Over::No => Over::Failed { told: false, error },
                Over::Failed { told, error } => Over::Failed {
                    told: *told,
                    error: error.clone(),
                },
                // Who has stopped it reads no more of it.
                Over::Stopped => Over::Failed { told: true, error },
            };
            state.close_readers();
        });
    }

    /// Why there is no going on, if it is so.
    pub fn failure(&self) -> Option<Error> {
        match &self.state.lock().over {
            Over::Failed { error, .. } => Some(error.clone()),
            Over::No | Over::Stopped => None,
        }
    }

    /// The next record, from whatever partition has one.
    pub fn poll_next(
        self: &Arc<Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Delivery>>> {
        let mut state = self.state.lock();
        match &mut state.over {
            Over::No => {}
            Over::Failed {
                told: told @ false,
                error,
            } => {
                *told = true;
                return Poll::Ready(Some(Err(error.clone())));
            }
            Over::Stopped | Over::Failed { .. } => return Poll::Ready(None),
        }
        state.waker = Some(context.waker().clone());
        let now = Instant::now();
        if state.is_full() || now >= state.heard_at + state.limits.session {
            return Poll::Pending;
        }
        let Poll::Ready((place, next)) = state.poll_parts(context) else {
            return Poll::Pending;
        };
        state.idle_since = now;
        match next {
            Ok(record) => Poll::Ready(state.hand_out(self, place, record).map(Ok)),
            Err(error) if error.is_retryable() => {
                state.reopen(place);
                state.unreadable.insert(place, error);
                drop(state);
                self.attention.notify_one();
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Err(error) => {
                state.over = Over::Failed {
                    told: true,
                    error: error.clone(),
                };
                state.close_readers();
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    /// A delivery is done, or was dropped before it was.
    pub fn settle(&self, ticket: &Ticket, done: bool) {
        let mut state = self.state.lock();
        let was_full = state.is_full();
        state.outstanding -= 1;
        state.outstanding_bytes -= ticket.bytes;
        let part = state.parts.get_mut(&ticket.place);
        let part = part.filter(|part| part.life == ticket.life);
        let mut settled = false;
        if let Some(part) = part
            && let Some(progress) = &mut part.progress
        {
            if done {
                progress.done(ticket.offset);
            } else {
                progress.dropped(ticket.offset);
            }
            let revoked = matches!(part.phase, Phase::Revoked { .. });
            settled = revoked && progress.outstanding() == 0;
        }
        let waker = state.waker.take_if(|_| was_full);
        drop(state);
        if settled {
            self.attention.notify_one();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether what the handler of this delivery does can still be committed.
    pub fn counts(&self, place: Place, life: u64) -> bool {
        let state = self.state.lock();
        let part = state.parts.get(&place).filter(|part| part.life == life);
        part.is_some_and(|part| matches!(part.phase, Phase::Reading(_)))
    }
}

impl State {
    fn is_full(&self) -> bool {
        self.outstanding >= self.limits.max_in_flight
            || self.outstanding_bytes >= self.limits.memory_bytes
    }

    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Another life of a partition.
    pub fn next_life(&mut self) -> u64 {
        self.last_life += 1;
        self.last_life
    }

    fn close_readers(&mut self) {
        for part in self.parts.values_mut() {
            part.stop_reading();
        }
    }

    /// Whether the application could take a record, or could if it finished with others.
    pub fn has_waiting(&self) -> bool {
        let mut parts = self.parts.values().filter(|part| !part.paused);
        parts.any(|part| matches!(&part.phase, Phase::Reading(reader) if reader.has_waiting()))
    }

    fn poll_parts(&mut self, context: &mut Context<'_>) -> Poll<(Place, Result<ConsumedRecord>)> {
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

    fn hand_out(
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
    fn reopen(&mut self, place: Place) {
        let share = self.share_bytes();
        let Some(part) = self.parts.get_mut(&place) else {
            return;
        };
        if let Phase::Reading(reader) = &mut part.phase {
            let position = reader.position();
            **reader = self.readers.open(&part.name, position, share);
        }
    }

    /// What one partition may fetch ahead, in bytes. Steps of two, so that one partition more does not
    /// make all begin anew.
    fn share_bytes(&self) -> usize {
        let parts = self.parts.len().max(1).next_power_of_two();
        (self.limits.memory_bytes / parts).max(1)
    }

    /// Begins to read what has a position, and gives all their share of the memory.
    pub fn begin(&mut self) {
        let share = self.share_bytes();
        let anew = self.readers.share_bytes != share;
        self.readers.share_bytes = share;
        for part in self.parts.values_mut() {
            let from = match &part.phase {
                Phase::Reading(reader) if anew => Some(reader.position()),
                _ => part.can_begin(),
            };
            let Some(from) = from.filter(|_| matches!(self.over, Over::No)) else {
                continue;
            };
            part.progress.get_or_insert_with(|| Progress::new(from));
            part.phase = Phase::Reading(Box::new(self.readers.open(&part.name, from, share)));
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
