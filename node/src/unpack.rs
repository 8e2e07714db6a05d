//! The node's budget for unpacking batches, counted in unpacked bytes.
//!
//! A few bytes on the wire or the disk may unpack to many. So all unpacking happens here, in steps that do
//! not block a serving thread, and within a memory bound. Records that unpack to far more than their packed
//! size also unpack at a bounded rate. Producers and readers have half of the budget each, so that neither
//! waits for the other. A batch that is done, or whose caller is gone, returns its share.
//!
//! Topics, filters, and the meaning of records must never come in.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ropewalk_proto::batch::{BatchError, BatchView, Compression};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::Limits;
use crate::env::cpu_bound;

/// Unpacked bytes between two checks of the budget.
const STEP_BYTES: usize = 1 << 20;
/// Batch size up to which a batch with at most [`SMALL_UNPACKED_BYTES`] is cheaper to unpack in place than on
/// another thread. No codec but snappy unpacks past that in its first step, and snappy yields at most 22
/// bytes for one.
const SMALL_BYTES: usize = 8 << 10;
const SMALL_UNPACKED_BYTES: usize = 64 << 10;
/// Expansion up to which a batch is an ordinary one: its cost is in proportion to the bytes sent or stored
/// for it. The others unpack one at a time, at a bounded rate.
const ORDINARY_RATIO: usize = 64;
/// Maximum idle time that counts as credit for later.
const BURST: Duration = Duration::from_secs(1);
/// Maximum total time that a batch waits for the budget.
const WITHIN: Duration = Duration::from_secs(5);

/// Unpacking budget of one node.
#[derive(Debug)]
pub struct Unpackers {
    /// For batches from producers.
    pub producers: Unpacker,
    /// For filters and lookups by timestamp.
    pub readers: Unpacker,
}

impl Unpackers {
    /// Creates an unused budget within the node's bounds.
    pub fn new(limits: &Limits) -> Unpackers {
        let room_bytes = (limits.unpack_inflight_bytes / 2).clamp(1, Semaphore::MAX_PERMITS);
        let half = || Unpacker {
            turns: Semaphore::new(turns()),
            room_bytes,
            room: Arc::new(Semaphore::new(room_bytes)),
            lane: Arc::new(Semaphore::new(1)),
            pace: Pace {
                bytes_per_s: limits.unpack_bytes_per_s.div_ceil(2),
                paid_at: Mutex::default(),
            },
        };
        Unpackers {
            producers: half(),
            readers: half(),
        }
    }
}

/// Half of the processors, at least one. The others are for the rest of the node's work.
fn turns() -> usize {
    let processors = available_parallelism().map_or(1, |it| it.get());
    (processors / 2).max(1)
}

/// One half of the budget.
#[derive(Debug)]
pub struct Unpacker {
    turns: Semaphore,
    /// One permit per byte to which ordinary batches may unpack at a time.
    room: Arc<Semaphore>,
    room_bytes: usize,
    /// Semaphore of the other batches, which unpack one at a time.
    lane: Arc<Semaphore>,
    pace: Pace,
}

/// Reason why a batch was not unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// The batch cannot be unpacked, or exceeds its bound.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The budget had no memory or no time for it.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
}

/// The budget was used up for longer than any caller waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unpacking budget of this node is exceeded")]
pub struct Overloaded;

/// Unpacked records of a batch. Dropping this returns their share of the memory.
#[derive(Debug)]
pub struct Unpacked {
    payload: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Unpacked {
    /// The records, one after the other.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }
}

impl Unpacker {
    /// Unpacks the records of a batch to at most `limit` bytes. Uncompressed ones cost nothing.
    ///
    /// # Errors
    /// [`UnpackError::Batch`] if the batch is bad; [`UnpackError::Overloaded`] if the budget is used up.
    pub async fn unpack(&self, batch: &BatchView, limit: usize) -> Result<Unpacked, UnpackError> {
        let plain = batch.compression() == Compression::None;
        if plain || batch.bytes().len() <= SMALL_BYTES {
            let mut small = batch.unpacking(limit)?;
            if small.step(SMALL_UNPACKED_BYTES)? {
                return Ok(Unpacked {
                    payload: small.into_payload(),
                    _room: None,
                });
            }
        }
        let unpacked = timeout(WITHIN, self.within_budget(batch, limit)).await;
        unpacked.unwrap_or(Err(Overloaded.into()))
    }

    /// Runs work on unpacked records, off the serving threads unless they are few.
    ///
    /// # Errors
    /// [`Overloaded`] if the budget is used up.
    pub async fn look<T>(
        &self,
        unpacked: &Unpacked,
        work: impl FnOnce(&Bytes) -> T,
    ) -> Result<T, Overloaded> {
        if unpacked.payload.len() <= SMALL_UNPACKED_BYTES {
            return Ok(work(&unpacked.payload));
        }
        let _turn = timeout(WITHIN, self.turn()).await.map_err(|_| Overloaded)?;
        Ok(cpu_bound(|| work(&unpacked.payload)))
    }

    /// Waits for a turn to keep a processor busy.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.turns.acquire().await.ok()
    }

    /// Takes all turns, so that no other caller gets one.
    #[cfg(test)]
    pub async fn take_all_turns(&self) -> SemaphorePermit<'_> {
        let all = u32::try_from(turns()).unwrap();
        self.turns.acquire_many(all).await.unwrap()
    }

    /// Unpacked bytes that are still free.
    #[cfg(test)]
    pub fn free_bytes(&self) -> usize {
        self.room.available_permits()
    }

    async fn within_budget(
        &self,
        batch: &BatchView,
        limit: usize,
    ) -> Result<Unpacked, UnpackError> {
        let ordinary = batch.bytes().len().saturating_mul(ORDINARY_RATIO);
        let ordinary = ordinary.min(limit);
        let room = u32::try_from(ordinary.min(self.room_bytes)).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(room).await;
        let room = room.map_err(|_| Overloaded)?;
        match self.in_steps(batch, ordinary, None).await {
            Err(BatchError::Expands { .. }) if ordinary < limit => drop(room),
            unpacked => return Ok(Unpacked::of(unpacked?, room)),
        }
        let lane = self.lane.clone().acquire_owned().await;
        let lane = lane.map_err(|_| Overloaded)?;
        let unpacked = self.in_steps(batch, limit, Some(&self.pace)).await;
        Ok(Unpacked::of(unpacked?, lane))
    }

    async fn in_steps(
        &self,
        batch: &BatchView,
        limit: usize,
        pace: Option<&Pace>,
    ) -> Result<Bytes, BatchError> {
        let mut unpacking = batch.unpacking(limit)?;
        let mut paid_bytes = 0;
        loop {
            let turn = self.turn().await;
            let whole = cpu_bound(|| unpacking.step(STEP_BYTES));
            drop(turn);
            if let Some(pace) = pace {
                // A failed batch pays for its work, too.
                let bytes = unpacking.unpacked_bytes();
                pace.pay(bytes - paid_bytes).await;
                paid_bytes = bytes;
            }
            if whole? {
                return Ok(unpacking.into_payload());
            }
            yield_now().await;
        }
    }
}

impl Unpacked {
    fn of(payload: Bytes, room: OwnedSemaphorePermit) -> Unpacked {
        Unpacked {
            payload,
            _room: Some(room),
        }
    }
}

/// Rate at which batches that are not ordinary unpack.
#[derive(Debug)]
struct Pace {
    /// 0: unlimited.
    bytes_per_s: usize,
    /// Time at which all bytes unpacked so far are paid for.
    paid_at: Mutex<Option<Instant>>,
}

impl Pace {
    /// Adds bytes to the bill, and waits until the bill is paid.
    async fn pay(&self, bytes: usize) {
        if self.bytes_per_s == 0 {
            return;
        }
        let took = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let paid_at = {
            let mut paid_at = self.paid_at.lock();
            let saved = Instant::now().checked_sub(BURST);
            let since = (*paid_at).max(saved).unwrap_or_else(Instant::now);
            *paid_at.insert(since + took)
        };
        sleep_until(paid_at).await;
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::batch::BatchBuilder;

    use super::*;

    const LIMIT: usize = 8 << 20;

    fn batch(bytes: usize) -> BatchView {
        let mut batch = BatchBuilder::new(Compression::Zstd, 64 << 20);
        assert!(batch.push(None, Some(&vec![0; bytes]), &[], 0).unwrap());
        BatchView::trusted(batch.build()).unwrap()
    }

    fn unpacker(inflight_bytes: usize, bytes_per_s: usize) -> Unpacker {
        let limits = Limits {
            unpack_inflight_bytes: 2 * inflight_bytes,
            unpack_bytes_per_s: 2 * bytes_per_s,
            ..Limits::default()
        };
        Unpackers::new(&limits).readers
    }

    /// Returns a batch whose records are about as long packed as unpacked.
    fn ordinary() -> BatchView {
        let mut noise: Vec<u8> = (0..100_000_u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        noise.resize(noise.len() + 100_000, 0);
        let mut ordinary = BatchBuilder::new(Compression::Lz4, 64 << 20);
        for _ in 0..3 {
            assert!(ordinary.push(None, Some(&noise), &[], 0).unwrap());
        }
        let ordinary = BatchView::trusted(ordinary.build()).unwrap();
        assert_eq!(ordinary.compression(), Compression::Lz4);
        ordinary
    }

    #[tokio::test(start_paused = true)]
    async fn what_unpacks_to_far_more_than_it_took_comes_at_the_pace_that_is_allowed() {
        let unpacker = unpacker(64 << 20, 4 << 20);
        let began = Instant::now();
        for _ in 0..4 {
            let unpacked = unpacker.unpack(&batch(4 << 20), LIMIT).await.unwrap();
            assert!(unpacked.payload().len() > 4 << 20);
        }
        let took = began.elapsed();
        assert!(took > Duration::from_millis(2_900), "{took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_past_its_bound_is_refused_and_paid_for_too() {
        let unpacker = unpacker(64 << 20, 4 << 20);
        let began = Instant::now();
        for _ in 0..2 {
            let error = unpacker.unpack(&batch(32 << 20), LIMIT).await.unwrap_err();
            assert!(matches!(
                error,
                UnpackError::Batch(BatchError::Expands { limit: LIMIT, .. })
            ));
        }
        assert!(began.elapsed() > Duration::from_millis(2_900));
    }

    #[tokio::test(start_paused = true)]
    async fn ordinary_records_wait_for_none_that_are_not() {
        let unpacker = unpacker(64 << 20, 1 << 10);
        let late = unpacker.unpack(&batch(4 << 20), LIMIT).await;
        assert_eq!(late.unwrap_err(), Overloaded.into());
        let _lane = unpacker.lane.acquire().await.unwrap();
        let began = Instant::now();
        unpacker.unpack(&ordinary(), LIMIT).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_by_who_is_done_or_gone_and_nobody_waits_for_ever() {
        let unpacker = unpacker(ordinary().bytes().len(), 0);
        for batch in [batch(1 << 20), ordinary()] {
            let first = unpacker.unpack(&batch, LIMIT).await.unwrap();
            let second = unpacker.unpack(&batch, LIMIT).await;
            assert_eq!(second.unwrap_err(), Overloaded.into());
            let gone = unpacker.unpack(&batch, LIMIT);
            assert!(timeout(Duration::from_millis(1), gone).await.is_err());
            drop(first);
            unpacker.unpack(&batch, LIMIT).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_small_batch_needs_no_room() {
        let unpacker = unpacker(1, 1);
        let _all = unpacker.room.clone().acquire_owned().await.unwrap();
        let unpacked = unpacker.unpack(&batch(1_000), LIMIT).await.unwrap();
        assert!(unpacked.payload().len() > 1_000);
    }
}
