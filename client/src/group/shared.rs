//! State shared by the parts of a subscription: the member that talks to the coordinator, the stream that
//! hands records out, and the outstanding deliveries. There is one lock. It is never held across an await or
//! a call into the application.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::assigned_partition::Phase;
use super::assignment::TopicPartitionId;
use super::delivery::{Delivery, DoneToken};
use super::readers::Readers;
use super::state::{Limits, State, StreamEnd};
use crate::error::{Error, Result};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Wakes the member: a revoked partition is settled, or a partition could not be read.
    pub attention: Notify,
    /// Number of times that partitions were taken away.
    pub taken: watch::Sender<u64>,
}

impl Shared {
    pub fn new(readers: Readers, limits: Limits, member_id: String) -> Arc<Shared> {
        Arc::new(Shared {
            state: Mutex::new(State::new(readers, limits, member_id)),
            attention: Notify::new(),
            taken: watch::Sender::new(0),
        })
    }

    /// Changes the state, and wakes the stream.
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

    /// Session timeout, as far as the client knows it.
    pub fn session(&self) -> Duration {
        self.state.lock().limits.session
    }

    /// Stops deliveries.
    pub fn stop(&self) {
        self.change(|state| {
            if matches!(state.over, StreamEnd::No) {
                state.over = StreamEnd::Stopped;
            }
            state.close_readers();
        });
    }

    /// Stops deliveries, and ends the stream with this error.
    pub fn fail(&self, error: Error) {
        self.change(|state| {
            state.over = match &state.over {
                StreamEnd::No => StreamEnd::Failed { told: false, error },
                StreamEnd::Failed { told, error } => StreamEnd::Failed {
                    told: *told,
                    error: error.clone(),
                },
                // The application that stopped the stream does not get the error from it.
                StreamEnd::Stopped => StreamEnd::Failed { told: true, error },
            };
            state.close_readers();
        });
    }

    /// Error that ended the subscription, if there is one.
    pub fn failure(&self) -> Option<Error> {
        match &self.state.lock().over {
            StreamEnd::Failed { error, .. } => Some(error.clone()),
            StreamEnd::No | StreamEnd::Stopped => None,
        }
    }

    /// The next record, from any partition that has one.
    pub fn poll_next(
        self: &Arc<Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Delivery>>> {
        let mut state = self.state.lock();
        match &mut state.over {
            StreamEnd::No => {}
            StreamEnd::Failed {
                told: told @ false,
                error,
            } => {
                *told = true;
                return Poll::Ready(Some(Err(error.clone())));
            }
            StreamEnd::Stopped | StreamEnd::Failed { .. } => return Poll::Ready(None),
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
            Err(error) if error.is_retryable() || error.says_topic_is_gone() => {
                match error.says_topic_is_gone() {
                    true => state.gone(place),
                    false => state.reopen(place),
                }
                state.unreadable.insert(place, error);
                drop(state);
                self.attention.notify_one();
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Err(error) => {
                state.over = StreamEnd::Failed {
                    told: true,
                    error: error.clone(),
                };
                state.close_readers();
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    /// Records that a delivery is done, or was dropped before.
    pub fn settle(&self, ticket: &DoneToken, done: bool) {
        let mut state = self.state.lock();
        let was_full = state.is_full();
        state.returned(ticket.bytes);
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

    /// Returns true if this member still reads the partition of the delivery, so that its result can be
    /// committed.
    pub fn counts(&self, place: TopicPartitionId, life: u64) -> bool {
        let state = self.state.lock();
        let part = state.parts.get(&place).filter(|part| part.life == life);
        part.is_some_and(|part| matches!(part.phase, Phase::Reading(_)))
    }
}
