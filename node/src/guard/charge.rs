//! Room for requests that are incomplete or unanswered, over all calls of one kind. Calls that hold room for
//! too long while others wait lose their connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::env::Remote;

/// Interval of the searches for charges that hold room for too long.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Room for requests.
#[derive(Debug, Clone)]
pub(super) struct Requests(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    free: Arc<Semaphore>,
    /// Permit to go on without room, for one message at a time. Without it, incomplete messages that fill the
    /// room could wait for each other.
    turn: Arc<Semaphore>,
    began: Instant,
    held_within: Duration,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    last: u64,
    charges: BTreeMap<u64, Arc<Holder>>,
    looked: Instant,
}

/// The call that a charge belongs to.
#[derive(Debug)]
struct Holder {
    caller: Option<Remote>,
    /// Milliseconds between `began` and the moment it took room; `u64::MAX` while it holds none.
    since_ms: AtomicU64,
}

/// Room that one call has until this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    requests: Requests,
    number: u64,
    holder: Arc<Holder>,
    permit: Option<OwnedSemaphorePermit>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Requests {
    /// Creates room for this many bytes. Others may evict a charge that was held for longer than
    /// `held_within`.
    pub fn new(bytes: usize, held_within: Duration) -> Requests {
        let began = Instant::now();
        Requests(Arc::new(Shared {
            free: Arc::new(Semaphore::new(bytes.min(u32::MAX as usize >> 1))),
            turn: Arc::new(Semaphore::new(1)),
            began,
            held_within,
            held: Mutex::new(Held {
                last: 0,
                charges: BTreeMap::new(),
                looked: began,
            }),
        }))
    }

    /// Semaphore of the room, to wait for.
    pub fn free(&self) -> Arc<Semaphore> {
        self.0.free.clone()
    }

    /// Semaphore of the turn to go on without room, to wait for.
    pub fn turn(&self) -> Arc<Semaphore> {
        self.0.turn.clone()
    }

    /// Creates an empty charge for one call.
    pub fn charge(&self, caller: Option<Remote>) -> Charge {
        let holder = Arc::new(Holder {
            caller,
            since_ms: AtomicU64::new(u64::MAX),
        });
        let mut held = self.0.held.lock();
        held.last += 1;
        let number = held.last;
        held.charges.insert(number, holder.clone());
        Charge {
            requests: self.clone(),
            number,
            holder,
            permit: None,
            turn: None,
        }
    }

    /// Closes the connections of calls that have held their room for too long. Called by a call that finds no
    /// room.
    pub fn give_up_stalled(&self) {
        let mut held = self.0.held.lock();
        let now = Instant::now();
        if now < held.looked + LOOK_EVERY {
            return;
        }
        held.looked = now;
        let longest = self.0.held_within.as_millis() as u64;
        let now_ms = self.now_ms();
        for holder in held.charges.values() {
            let since_ms = holder.since_ms.load(Ordering::Relaxed);
            let Some(caller) = &holder.caller else {
                continue;
            };
            if now_ms.saturating_sub(since_ms) >= longest {
                caller.cut("its request occupied memory for too long, and other requests need it");
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.0.began.elapsed().as_millis() as u64
    }
}

impl Charge {
    /// Bytes that are charged.
    pub fn bytes(&self) -> usize {
        self.permit
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Adds room.
    pub fn add(&mut self, room: Option<OwnedSemaphorePermit>) {
        // The semaphore is never closed.
        let Some(room) = room else {
            return;
        };
        match &mut self.permit {
            Some(permit) => permit.merge(room),
            none => *none = Some(room),
        }
        self.hold();
    }

    /// Lets the message in progress go on without room.
    pub fn take_turn(&mut self, turn: OwnedSemaphorePermit) {
        self.turn = Some(turn);
        self.hold();
    }

    /// True while the message in progress goes on without room.
    pub fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// Keeps at most room for this many bytes, those of an incomplete message.
    pub fn settle(&mut self, unfinished: usize) {
        let bytes = self.bytes();
        if let Some(permit) = &mut self.permit {
            drop(permit.split(bytes.saturating_sub(unfinished)));
        }
        if bytes >= unfinished {
            self.turn = None;
        }
        if unfinished == 0 {
            self.holder.since_ms.store(u64::MAX, Ordering::Relaxed);
        } else if bytes > unfinished {
            self.holder
                .since_ms
                .store(self.requests.now_ms(), Ordering::Relaxed);
        }
    }

    /// Ends the turn: the message that went on without room is complete.
    pub fn end_turn(&mut self) {
        self.turn = None;
    }

    /// Starts the time that room is held or waited for, unless it runs already.
    pub fn hold(&self) {
        let since_ms = &self.holder.since_ms;
        if since_ms.load(Ordering::Relaxed) == u64::MAX {
            since_ms.store(self.requests.now_ms(), Ordering::Relaxed);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.requests.0.held.lock().charges.remove(&self.number);
    }
}
