//! Room for requests that are incomplete or unanswered, over all calls of one kind. Calls that hold room for
//! too long while others wait lose their connections. What one address may hold is in `share`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::queue::Queue;
use super::share::Shares;
use crate::env::Remote;

/// Interval of the searches for charges that hold room for too long.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Room for requests.
#[derive(Debug, Clone)]
pub(super) struct Requests(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    held_within: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    shares: Shares,
    queue: Queue,
    /// Calls that hold room or wait for it.
    holders: BTreeMap<u64, Holder>,
    /// Call whose message goes on without room, one at a time. Without it, incomplete messages that fill the
    /// room could wait for each other.
    turn: Option<u64>,
    last: u64,
    looked: Instant,
}

#[derive(Debug)]
struct Holder {
    host: Arc<str>,
    remote: Option<Remote>,
    since: Instant,
    bytes: usize,
    wait: Option<Wait>,
}

#[derive(Debug)]
struct Wait {
    bytes: usize,
    waker: Waker,
}

/// Room that one call has until this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    room: Requests,
    host: Arc<str>,
    remote: Option<Remote>,
    /// Its place among the holders, if it has one.
    number: Option<u64>,
    bytes: usize,
    is_waiting: bool,
    has_turn: bool,
}

impl Requests {
    /// Creates room for this many bytes. Others may evict a charge that was held for longer than
    /// `held_within`.
    pub fn new(bytes: usize, held_within: Duration) -> Requests {
        Requests(Arc::new(Shared {
            held_within,
            state: Mutex::new(State {
                shares: Shares::of(bytes),
                queue: Queue::default(),
                holders: BTreeMap::new(),
                turn: None,
                last: 0,
                looked: Instant::now(),
            }),
        }))
    }

    /// Creates an empty charge for one call of an address. The empty address has no bound.
    pub fn charge(&self, host: Arc<str>, remote: Option<Remote>) -> Charge {
        Charge {
            room: self.clone(),
            host,
            remote,
            number: None,
            bytes: 0,
            is_waiting: false,
            has_turn: false,
        }
    }

    /// Bytes that nobody holds.
    #[cfg(test)]
    pub fn left(&self) -> usize {
        self.0.state.lock().shares.left()
    }

    /// True if both are the same room.
    #[cfg(test)]
    pub fn is(&self, other: &Requests) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// True if nobody holds room or waits for it.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        let state = self.0.state.lock();
        let is_idle = state.holders.is_empty() && state.turn.is_none();
        is_idle && state.shares.is_empty()
    }
}

impl State {
    fn enter(&mut self, host: &Arc<str>, remote: &Option<Remote>) -> u64 {
        self.last += 1;
        let holder = Holder {
            host: host.clone(),
            remote: remote.clone(),
            since: Instant::now(),
            bytes: 0,
            wait: None,
        };
        self.holders.insert(self.last, holder);
        self.last
    }

    /// True if a call of this address may take room at once.
    fn may_take(&self, host: &str, bytes: usize, is_begun: bool) -> bool {
        let is_behind = self.queue.is_behind(host, is_begun);
        !is_behind && self.shares.need(host, bytes) <= self.shares.left()
    }

    /// Gives room to a call, also beyond the share of its address.
    fn give(&mut self, number: u64, bytes: usize) {
        if let Some(holder) = self.holders.get_mut(&number) {
            holder.bytes = holder.bytes.saturating_add(bytes);
            self.shares.take(&holder.host, bytes);
            self.queue.refresh(&holder.host, &self.shares);
        }
    }

    /// Takes room back from a call. Returns true if the call has left, because it no longer needs a place.
    fn take_back(&mut self, number: u64, bytes: usize) -> bool {
        let Some(holder) = self.holders.get_mut(&number) else {
            return true;
        };
        let bytes = bytes.min(holder.bytes);
        holder.bytes -= bytes;
        self.shares.give_back(&holder.host, bytes);
        self.queue.refresh(&holder.host, &self.shares);
        let is_over = holder.bytes == 0 && holder.wait.is_none() && self.turn != Some(number);
        if is_over {
            self.holders.remove(&number);
        }
        is_over
    }

    /// Puts a call into the queue, unless the turn to go on without room is free and the call may have it.
    fn wait(&mut self, number: u64, bytes: usize, is_begun: bool, waker: &Waker) {
        let Some(holder) = self.holders.get_mut(&number) else {
            return;
        };
        if is_begun && self.turn.is_none() {
            self.turn = Some(number);
            self.queue.note_turn(&holder.host);
            return;
        }
        let waker = waker.clone();
        holder.wait = Some(Wait { bytes, waker });
        self.queue.join(&holder.host, number, bytes, is_begun);
        self.queue.refresh(&holder.host, &self.shares);
    }

    /// Ends the wait of a call.
    fn leave_queue(&mut self, number: u64) -> Option<Wait> {
        let holder = self.holders.get_mut(&number)?;
        let wait = holder.wait.take()?;
        self.queue.leave(&holder.host, number);
        self.queue.refresh(&holder.host, &self.shares);
        Some(wait)
    }

    /// Gives the free room and the turn to waiting calls. The wakers must be called without the lock.
    fn serve(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while let Some(number) = self.queue.first_within(self.shares.left()) {
            let Some(wait) = self.leave_queue(number) else {
                break;
            };
            self.give(number, wait.bytes);
            wakers.push(wait.waker);
        }
        if self.turn.is_none()
            && let Some(number) = self.queue.next_turn()
            && let Some(wait) = self.leave_queue(number)
        {
            self.turn = Some(number);
            wakers.push(wait.waker);
        }
        wakers
    }

    /// Closes the connections of calls that have held their room for too long. If there is room left, the
    /// addresses that wait have used up their shares, and only they lose connections.
    fn give_up_stalled(&mut self, wanted: usize, held_within: Duration) {
        let now = Instant::now();
        if now < self.looked + LOOK_EVERY {
            return;
        }
        self.looked = now;
        let is_full = self.shares.left() < wanted;
        for holder in self.holders.values() {
            let is_in_the_way = is_full || self.queue.has(&holder.host);
            if let Some(remote) = &holder.remote
                && is_in_the_way
                && now >= holder.since + held_within
            {
                remote.cut("its request occupied memory for too long, and other requests need it");
            }
        }
    }
}

impl Charge {
    /// Bytes that are charged.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True while the call waits for room.
    pub fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// True while the message in progress goes on without room.
    pub fn has_turn(&self) -> bool {
        self.has_turn
    }

    /// Takes room if there is some at once.
    pub fn try_take(&mut self, bytes: usize, is_begun: bool) -> bool {
        let mut state = self.room.0.state.lock();
        if !state.may_take(&self.host, bytes, is_begun) {
            return false;
        }
        let number = self.number;
        let number = number.unwrap_or_else(|| state.enter(&self.host, &self.remote));
        state.give(number, bytes);
        self.number = Some(number);
        self.bytes += bytes;
        true
    }

    /// Takes room, or waits for it. A message that has begun may instead get the turn to go on without.
    /// Until this is ready, it must be called with the same arguments.
    pub fn poll_take(&mut self, cx: &Context<'_>, bytes: usize, is_begun: bool) -> Poll<()> {
        let mut state = self.room.0.state.lock();
        let number = self.number;
        let number = number.unwrap_or_else(|| state.enter(&self.host, &self.remote));
        self.number = Some(number);
        if !self.is_waiting && state.may_take(&self.host, bytes, is_begun) {
            state.give(number, bytes);
        } else {
            if !self.is_waiting {
                state.wait(number, bytes, is_begun, cx.waker());
            }
            state.give_up_stalled(bytes, self.room.0.held_within);
        }
        let is_turn = state.turn == Some(number);
        self.is_waiting = false;
        if let Some(holder) = state.holders.get_mut(&number) {
            self.bytes = holder.bytes;
            if let Some(wait) = &mut holder.wait {
                wait.waker.clone_from(cx.waker());
                self.is_waiting = true;
                return Poll::Pending;
            }
        }
        self.has_turn = is_turn;
        Poll::Ready(())
    }

    /// Gives room back. The time that the rest is held starts again: a message is complete.
    pub fn give_back(&mut self, bytes: usize) {
        let Some(number) = self.number.filter(|_| bytes > 0) else {
            return;
        };
        let mut state = self.room.0.state.lock();
        if state.take_back(number, bytes) {
            self.number = None;
        } else if let Some(holder) = state.holders.get_mut(&number) {
            holder.since = Instant::now();
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        let wakers = state.serve();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends the turn: the message that went on without room is complete.
    pub fn end_turn(&mut self) {
        let Some(number) = self.number.filter(|_| self.has_turn) else {
            return;
        };
        self.has_turn = false;
        let mut state = self.room.0.state.lock();
        state.turn = None;
        if state.take_back(number, 0) {
            self.number = None;
        }
        let wakers = state.serve();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let Some(number) = self.number else {
            return;
        };
        let mut state = self.room.0.state.lock();
        state.leave_queue(number);
        if state.turn == Some(number) {
            state.turn = None;
        }
        state.take_back(number, usize::MAX);
        let wakers = state.serve();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}
