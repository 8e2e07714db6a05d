//! Room for unsent answers, over the whole node. When it is full, callers that have read nothing for longest
//! lose their connections. What one address may hold is in `share`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ropewalk_proto::error::{ErrorCode, WireError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::share::Shares;
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
#[derive(Debug)]
struct Claims {
    shares: Shares,
    /// Number of times that room was given back.
    returns: u64,
}

/// Part of the room that one answer counts for until this is dropped.
struct Claim {
    room: Room,
    host: Arc<str>,
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
    remote: Option<Remote>,
}

/// Room that one answer has until this is dropped.
pub struct Held {
    room: Room,
    number: u64,
    permit: OwnedSemaphorePermit,
    claim: Claim,
}

impl Claim {
    fn shrink(&mut self, bytes: usize) {
        let over = self.bytes.saturating_sub(bytes);
        if over == 0 {
            return;
        }
        self.bytes -= over;
        let shared = &self.room.0;
        let mut claims = shared.claims.lock();
        claims.shares.give_back(&self.host, over);
        claims.returns = claims.returns.wrapping_add(1);
        drop(claims);
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
            claims: Mutex::new(Claims {
                shares: Shares::of(bytes),
                returns: 0,
            }),
            unclaimed: Notify::new(),
        }))
    }

    /// Takes room for an answer of this many bytes. An answer larger than the whole room takes all of it.
    ///
    /// # Errors
    /// `Overloaded` if there is none for too long.
    pub async fn hold(&self, bytes: usize, remote: Option<Remote>) -> Result<Held, WireError> {
        let bytes = bytes.min(self.0.bytes);
        let wanted = bytes as u32;
        let until = Instant::now() + ROOM_WITHIN;
        let claim = self.claim(bytes, remote.as_ref(), until).await?;
        if let Ok(permit) = self.0.free.clone().try_acquire_many_owned(wanted) {
            return Ok(self.note(permit, claim, remote));
        }
        let acquiring = self.0.free.clone().acquire_many_owned(wanted);
        tokio::pin!(acquiring);
        while Instant::now() < until {
            self.give_up_stalled(bytes, None);
            if let Ok(Ok(permit)) = timeout(LOOK_EVERY, &mut acquiring).await {
                return Ok(self.note(permit, claim, remote));
            }
        }
        Err(no_room())
    }

    /// Waits until the caller's address holds no more than is left. Answers without a caller are the node's
    /// own.
    async fn claim(
        &self,
        bytes: usize,
        remote: Option<&Remote>,
        until: Instant,
    ) -> Result<Claim, WireError> {
        let host = remote.map_or("", Remote::host);
        if let Some(claim) = self.try_claim(bytes, host) {
            return Ok(claim);
        }
        let mut passed_on = None;
        while Instant::now() < until {
            self.give_up_stalled(bytes, Some(host));
            let _ = timeout(LOOK_EVERY, self.0.unclaimed.notified()).await;
            if let Some(claim) = self.try_claim(bytes, host) {
                // One at a time, so that a freed answer never wakes all. There may be room for the next.
                self.0.unclaimed.notify_one();
                return Ok(claim);
            }
            // Room that this address may not use may do for another. Each waiter passes a return on once.
            let returns = Some(self.0.claims.lock().returns);
            if passed_on != returns {
                passed_on = returns;
                self.0.unclaimed.notify_one();
            }
        }
        self.0.unclaimed.notify_one();
        Err(no_room())
    }

    fn try_claim(&self, bytes: usize, host: &str) -> Option<Claim> {
        let mut claims = self.0.claims.lock();
        let shares = &mut claims.shares;
        // An answer that is larger than a share still gets its room, alone.
        let in_share = host.is_empty()
            || shares.held_by(host) == 0
            || shares.need(host, bytes) <= shares.left();
        if !in_share {
            return None;
        }
        let host = Arc::from(host);
        shares.take(&host, bytes);
        Some(Claim {
            room: self.clone(),
            host,
            bytes,
        })
    }

    fn note(&self, permit: OwnedSemaphorePermit, claim: Claim, remote: Option<Remote>) -> Held {
        let mut waiting = self.0.waiting.lock();
        waiting.last += 1;
        let number = waiting.last;
        let answer = Answer {
            since: Instant::now(),
            bytes: permit.num_permits(),
            remote,
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
            let of_host = |remote: &&Remote| host.is_none_or(|host| remote.host() == host);
            if let Some(remote) = answer.remote.as_ref().filter(of_host) {
                remote.cut("it does not read its answers, and other callers need the memory");
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
        assert!(room.0.claims.lock().shares.is_empty());
        let alone = room
            .hold(1_000, caller(1))
            .await
            .expect("one that is larger than all");
        assert_eq!(room.used(), 120);
        drop(alone);
    }

    #[tokio::test(start_paused = true)]
    async fn room_that_one_address_may_not_use_is_offered_to_the_next() {
        let room = Room::new(120);
        let caller = |n: u8| Some(Remote::of(&format!("10.0.0.{n}:1")));
        let _most = room.hold(60, caller(1)).await.expect("its half");
        let _less = room.hold(25, caller(2)).await.expect("less than is left");
        let own = room.hold(15, None).await.expect("the node itself");
        let wait = |n: u8| {
            let room = room.clone();
            tokio::spawn(async move { room.hold(1, caller(n)).await.map(drop) })
        };
        let (first, second) = (wait(1), wait(2));
        tokio::task::yield_now().await;
        let began = Instant::now();
        drop(own);
        second.await.expect("no panic").expect("room");
        assert!(began.elapsed() < LOOK_EVERY, "{:?}", began.elapsed());
        first.await.expect("no panic").expect_err("past its share");
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
