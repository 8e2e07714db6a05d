//! Room for unsent answers, over the whole node. When it is full, callers that have read nothing for longest
//! lose their connections.
//!
//! **One address holds no more than is left for the others** (the dynamic thresholds of Choudhury and Hahne,
//! "Dynamic queue length thresholds for shared-memory packet switches", 1998). One address alone gets half of
//! the room, two get a third each, and a further one still finds some.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ropewalk_proto::error::{ErrorCode, WireError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::env::Remote;

/// Time after which others may evict an answer that its caller does not read, with its connection.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// Maximum time that an answer waits for room.
const ROOM_WITHIN: Duration = Duration::from_secs(7);
/// Interval between checks for stalled callers while an answer waits.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Room for the answers of a node.
#[derive(Debug, Clone)]
pub struct Room(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes: usize,
    free: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    claims: Mutex<Claims>,
    /// Notified when a claim has become smaller.
    unclaimed: Notify,
}

/// Bytes that answers hold or wait for.
#[derive(Debug, Default)]
struct Claims {
    all: usize,
    by_host: HashMap<String, usize>,
}

/// Part of the room that one answer counts for until this is dropped.
struct Claim {
    room: Room,
    host: String,
    bytes: usize,
}

/// Unsent answers, the oldest first.
#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    answers: BTreeMap<u64, Answer>,
}

#[derive(Debug)]
struct Answer {
    since: Instant,
    bytes: usize,
    caller: Option<Remote>,
}

/// Room that one answer has until this is dropped.
pub struct Held {
    room: Room,
    number: u64,
    permit: OwnedSemaphorePermit,
    claim: Claim,
}

impl Claims {
    fn give_back(&mut self, host: &str, bytes: usize) {
        self.all = self.all.saturating_sub(bytes);
        if let Some(held) = self.by_host.get_mut(host) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.by_host.remove(host);
            }
        }
    }
}

impl Claim {
    fn shrink(&mut self, bytes: usize) {
        let over = self.bytes.saturating_sub(bytes);
        if over == 0 {
            return;
        }
        self.bytes -= over;
        let shared = &self.room.0;
        shared.claims.lock().give_back(&self.host, over);
        shared.unclaimed.notify_one();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

impl Room {
    /// Creates room for this many bytes.
    pub fn new(bytes: usize) -> Room {
        let bytes = bytes.clamp(1, u32::MAX as usize >> 1);
        Room(Arc::new(Shared {
            bytes,
            free: Arc::new(Semaphore::new(bytes)),
            waiting: Mutex::default(),
            claims: Mutex::default(),
            unclaimed: Notify::new(),
        }))
    }

    /// Takes room for an answer of this many bytes. An answer larger than the whole room takes all of it.
    ///
    /// # Errors
    /// `Overloaded` if there is none for too long.
    pub async fn hold(&self, bytes: usize, caller: Option<Remote>) -> Result<Held, WireError> {
        let bytes = bytes.min(self.0.bytes);
        let wanted = bytes as u32;
        let until = Instant::now() + ROOM_WITHIN;
        let claim = self.claim(bytes, caller.as_ref(), until).await?;
        if let Ok(permit) = self.0.free.clone().try_acquire_many_owned(wanted) {
            return Ok(self.note(permit, claim, caller));
        }
        let acquiring = self.0.free.clone().acquire_many_owned(wanted);
        tokio::pin!(acquiring);
        while Instant::now() < until {
            self.give_up_stalled(bytes, None);
            if let Ok(Ok(permit)) = timeout(LOOK_EVERY, &mut acquiring).await {
                return Ok(self.note(permit, claim, caller));
            }
        }
        Err(no_room())
    }

    /// Waits until the caller's address holds no more than is left. Answers without a caller are the node's
    /// own.
    async fn claim(
        &self,
        bytes: usize,
        caller: Option<&Remote>,
        until: Instant,
    ) -> Result<Claim, WireError> {
        let host = caller.map_or("", Remote::host);
        if let Some(claim) = self.try_claim(bytes, host) {
            return Ok(claim);
        }
        while Instant::now() < until {
            self.give_up_stalled(bytes, Some(host));
            let _ = timeout(LOOK_EVERY, self.0.unclaimed.notified()).await;
            if let Some(claim) = self.try_claim(bytes, host) {
                // One at a time, so that a freed answer never wakes all. There may be room for the next.
                self.0.unclaimed.notify_one();
                return Ok(claim);
            }
        }
        Err(no_room())
    }

    fn try_claim(&self, bytes: usize, host: &str) -> Option<Claim> {
        let mut claims = self.0.claims.lock();
        let held = claims.by_host.get(host).copied().unwrap_or(0);
        let left = self.0.bytes.saturating_sub(claims.all);
        let in_share = host.is_empty() || held == 0 || held.saturating_add(bytes) <= left;
        if !in_share {
            return None;
        }
        claims.all = claims.all.saturating_add(bytes);
        *claims.by_host.entry(host.to_owned()).or_default() += bytes;
        Some(Claim {
            room: self.clone(),
            host: host.to_owned(),
            bytes,
        })
    }

    fn note(&self, permit: OwnedSemaphorePermit, claim: Claim, caller: Option<Remote>) -> Held {
        let mut waiting = self.0.waiting.lock();
        waiting.last += 1;
        let number = waiting.last;
        let answer = Answer {
            since: Instant::now(),
            bytes: permit.num_permits(),
            caller,
        };
        waiting.answers.insert(number, answer);
        Held {
            room: self.clone(),
            number,
            permit,
            claim,
        }
    }

    /// Closes the connections of the oldest answers that their callers do not read, of one host or of all, as
    /// far as needed.
    fn give_up_stalled(&self, bytes: usize, host: Option<&str>) {
        let now = Instant::now();
        let waiting = self.0.waiting.lock();
        let mut gained = 0;
        for answer in waiting.answers.values() {
            if gained >= bytes || now < answer.since + STALLED_AFTER {
                return;
            }
            let of_host = |caller: &&Remote| host.is_none_or(|host| caller.host() == host);
            if let Some(caller) = answer.caller.as_ref().filter(of_host) {
                caller.cut("it does not read its answers, and other callers need the memory");
                gained += answer.bytes;
            }
        }
    }

    /// Bytes of unsent answers.
    #[cfg(test)]
    fn used(&self) -> usize {
        self.0.bytes.saturating_sub(self.0.free.available_permits())
    }
}

impl Held {
    /// Returns unneeded room, now that the size is known.
    pub fn shrink(&mut self, bytes: usize) {
        let over = self.permit.num_permits().saturating_sub(bytes);
        drop(self.permit.split(over));
        self.claim.shrink(bytes);
        let mut waiting = self.room.0.waiting.lock();
        if let Some(answer) = waiting.answers.get_mut(&self.number) {
            answer.bytes = bytes.min(answer.bytes);
            answer.since = Instant::now();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.0.waiting.lock().answers.remove(&self.number);
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", self.permit.num_permits())
    }
}

fn no_room() -> WireError {
    WireError::new(
        ErrorCode::Overloaded,
        "node's memory for answers is full of unread ones; read the answers, or try again later",
    )
}

/// Room of answers that a stream has passed on for encoding, until it is bound to their bytes.
#[derive(Debug, Clone, Default)]
pub struct Outbox(Arc<Mutex<Vec<Held>>>);

impl Outbox {
    /// Passes on the room of an answer together with it.
    pub fn push(&self, held: Held) {
        self.0.lock().push(held);
    }

    /// Binds the room that was passed on to the bytes encoded from it.
    pub(super) fn bind(&self, bytes: Bytes) -> Bytes {
        let held = std::mem::take(&mut *self.0.lock());
        match held.is_empty() {
            true => bytes,
            false => bind(bytes, Arc::new(held)),
        }
    }
}

/// Returns bytes that hold their room until they are written or dropped.
pub(super) fn bind<T: Send + Sync + 'static>(bytes: Bytes, held: Arc<T>) -> Bytes {
    struct Bound<T>(
        Bytes,
        #[allow(dead_code, reason = "held until it is dropped")] Arc<T>,
    );
    impl<T> AsRef<[u8]> for Bound<T> {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Bound(bytes, held))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn room_comes_back_with_the_last_byte_and_not_before() {
        let room = Room::new(10);
        let outbox = Outbox::default();
        let mut held = room.hold(10, None).await.expect("room");
        held.shrink(6);
        assert_eq!(room.used(), 6);
        outbox.push(held);
        let mut bytes = outbox.bind(Bytes::from_static(b"answer"));
        let rest = bytes.split_off(3);
        drop(bytes);
        assert_eq!(room.used(), 6);
        let refused = room.hold(5, None).await.expect_err("no room");
        assert_eq!(refused.code, ErrorCode::Overloaded);
        drop(rest);
        assert_eq!(room.used(), 0);
        let all = room.hold(1_000, None).await.expect("all of it");
        assert_eq!(room.used(), 10);
        drop(all);
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_leaves_as_much_as_it_holds_to_the_others() {
        let room = Room::new(120);
        let caller = |n: u8| Some(Remote::of(&format!("10.0.0.{n}:1")));
        let mut held = Vec::new();
        for _ in 0..60 {
            held.push(room.hold(1, caller(1)).await.expect("its half"));
        }
        room.hold(1, caller(1))
            .await
            .expect_err("no more than that");
        for _ in 0..30 {
            held.push(room.hold(1, caller(2)).await.expect("as much as is left"));
        }
        room.hold(1, caller(2)).await.expect_err("no more");
        held.push(room.hold(15, caller(3)).await.expect("whoever comes next"));
        held.push(room.hold(15, None).await.expect("the node itself"));
        assert_eq!(room.used(), 120);
        drop(held);
        assert_eq!(room.used(), 0);
        assert!(room.0.claims.lock().by_host.is_empty());
        let alone = room
            .hold(1_000, caller(1))
            .await
            .expect("one that is larger than all");
        assert_eq!(room.used(), 120);
        drop(alone);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_nothing_makes_room_for_others() {
        let room = Room::new(10);
        let stalled = Remote::of("10.0.0.1:1");
        let held = room.hold(10, Some(stalled.clone())).await.expect("room");
        let ended = stalled.clone();
        tokio::spawn(async move {
            ended.ended().await;
            drop(held);
        });
        let began = Instant::now();
        room.hold(1, None).await.expect("room in time");
        assert!(began.elapsed() >= STALLED_AFTER, "{:?}", began.elapsed());
        assert!(stalled.is_cut());
    }
}
