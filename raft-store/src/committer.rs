//! The only writer of a node. Log appends, votes, truncations and state effects of all groups pass through
//! it in order. It merges waiting submissions into one write batch and syncs once. So one fsync serves
//! every partition and every producer that waits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::disk::{Change, ChangeBatch, Disk, DiskError};
use crate::histogram::{Histogram, SIZE_BOUNDS_BYTES};

/// Cost of a change in the queue, besides its bytes.
const CHANGE_BYTES: usize = 64;

/// Bounds of the committer.
#[derive(Debug, Clone)]
pub struct CommitterOptions {
    /// Bytes that may wait. Beyond them, [`Committer::submit`] waits for room.
    pub queue_bytes: usize,
    /// Maximum bytes of one batch, unless a single submission is larger.
    pub batch_bytes: usize,
    /// Free space below which the status is [`DiskStatus::Full`].
    pub free_space_floor_bytes: u64,
    /// Interval between checks of the free space.
    pub free_space_interval: Duration,
}

impl Default for CommitterOptions {
    fn default() -> CommitterOptions {
        CommitterOptions {
            queue_bytes: 64 << 20,
            batch_bytes: 4 << 20,
            free_space_floor_bytes: 256 << 20,
            free_space_interval: Duration::from_secs(1),
        }
    }
}

/// Durability that a write needs before it counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Done once the write and everything before it are synced.
    Synced,
    /// Done once written. The next sync of any write also syncs it.
    Unsynced,
}

/// State of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskStatus {
    /// The disk takes reads and writes.
    Healthy,
    /// Less than the floor is free. The committer still writes; producers must be refused.
    Full,
    /// A commit failed. The disk takes no writes until it is reopened.
    Failed(String),
}

/// Counters of the committer, and the time that replicas spend applying, for metrics.
#[derive(Debug)]
pub struct CommitCounters {
    /// Batches written.
    pub batches: AtomicU64,
    /// Batches that were synced, with one fsync each.
    pub syncs: AtomicU64,
    /// Bytes of keys and values, plus `CHANGE_BYTES` a change.
    pub bytes: AtomicU64,
    /// Submissions taken from the queue. Several may share a batch.
    pub submissions: AtomicU64,
    /// Free space at the last check; `u64::MAX` before the first.
    pub free_bytes: AtomicU64,
    /// Free and used space together; 0 if the disk can't report it.
    pub total_bytes: AtomicU64,
    /// Time of each synced write.
    pub sync_time: Histogram,
    /// Size of each batch, counted as in `bytes`.
    pub batch_bytes: Histogram,
    /// Time to apply committed entries, one value for each part whose proposers are answered together.
    pub apply_time: Histogram,
}

impl Default for CommitCounters {
    fn default() -> CommitCounters {
        CommitCounters {
            batches: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            submissions: AtomicU64::new(0),
            free_bytes: AtomicU64::new(u64::MAX),
            total_bytes: AtomicU64::new(0),
            sync_time: Histogram::latencies(),
            batch_bytes: Histogram::new(SIZE_BOUNDS_BYTES),
            apply_time: Histogram::latencies(),
        }
    }
}

type Done = Box<dyn FnOnce(Result<(), DiskError>) + Send>;

struct Submission {
    batch: ChangeBatch,
    durability: Durability,
    done: Done,
    bytes: usize,
    _room: OwnedSemaphorePermit,
}

/// Handle of the committer, cheap to clone. After [`Committer::close`] no handle can submit. The
/// committer's task ends when the last handle is dropped.
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::UnboundedSender<Submission>,
    room: Arc<Semaphore>,
    queue_bytes: usize,
    status: watch::Receiver<DiskStatus>,
    damage: watch::Sender<Option<String>>,
    counters: Arc<CommitCounters>,
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committer")
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}

impl Committer {
    /// Starts the committer of a disk on the current runtime.
    pub fn start(disk: Arc<dyn Disk>, options: CommitterOptions) -> Committer {
        // The queue needs no bound: every submission holds permits of `room` for its bytes.
        let (queue, submissions) = mpsc::unbounded_channel();
        let (status, watched) = watch::channel(DiskStatus::Healthy);
        let damage = watch::Sender::new(None);
        let counters = Arc::new(CommitCounters::default());
        // A submission acquires its permits as a `u32`.
        let queue_bytes = options.queue_bytes.clamp(1, u32::MAX as usize);
        let worker = Worker {
            disk,
            options,
            status,
            damage: damage.clone(),
            counters: counters.clone(),
        };
        tokio::spawn(worker.run(submissions));
        let room = Arc::new(Semaphore::new(queue_bytes));
        Committer {
            queue,
            room,
            queue_bytes,
            status: watched,
            damage,
            counters,
        }
    }

    /// Queues a batch, and waits only for room. The committer calls `done` once the batch is written or has
    /// failed, after the `done` of every earlier submission. The call runs on the committer's task and must
    /// not block.
    pub async fn submit(
        &self,
        batch: ChangeBatch,
        durability: Durability,
        done: impl FnOnce(Result<(), DiskError>) + Send + 'static,
    ) {
        let bytes = size(&batch);
        let permits = bytes.min(self.queue_bytes) as u32;
        let Ok(room) = self.room.clone().acquire_many_owned(permits).await else {
            done(Err(closed()));
            return;
        };
        let submission = Submission {
            batch,
            durability,
            done: Box::new(done),
            bytes,
            _room: room,
        };
        if let Err(refused) = self.queue.send(submission) {
            (refused.0.done)(Err(closed()));
        }
    }

    /// Queues a batch and waits for its result.
    pub async fn commit(
        &self,
        batch: ChangeBatch,
        durability: Durability,
    ) -> Result<(), DiskError> {
        let (done, happened) = oneshot::channel();
        // The receiver may be dropped with its future; the write happens anyway.
        self.submit(batch, durability, |result| drop(done.send(result)))
            .await;
        happened.await.unwrap_or_else(|_| Err(closed()))
    }

    /// First damage found in the disk as a whole, rather than in one replica. It is never cleared.
    pub fn damage(&self) -> watch::Receiver<Option<String>> {
        self.damage.subscribe()
    }

    /// Records damage of the disk as a whole. Only the first is kept.
    pub fn note_damage(&self, what: &str) {
        note(&self.damage, what);
    }

    /// Status of the disk as of the last commit or check of its free space.
    pub fn status(&self) -> watch::Receiver<DiskStatus> {
        self.status.clone()
    }

    /// Bytes that wait or are being written, and the limit.
    pub fn queued_bytes(&self) -> (usize, usize) {
        let free = self.room.available_permits();
        (self.queue_bytes.saturating_sub(free), self.queue_bytes)
    }

    /// Counters since the start.
    pub fn counters(&self) -> &CommitCounters {
        &self.counters
    }

    /// Waits until everything queued is written and synced, then refuses further submissions.
    pub async fn close(&self) {
        let _ = self
            .commit(ChangeBatch::default(), Durability::Synced)
            .await;
        self.room.close();
    }
}

struct Worker {
    disk: Arc<dyn Disk>,
    options: CommitterOptions,
    status: watch::Sender<DiskStatus>,
    damage: watch::Sender<Option<String>>,
    counters: Arc<CommitCounters>,
}

impl Worker {
    async fn run(self, mut submissions: mpsc::UnboundedReceiver<Submission>) {
        let mut look = tokio::time::interval(self.options.free_space_interval);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut carried = None;
        loop {
            // The free-space check comes first. Under a load that always leaves a submission over, it would
            // otherwise never run, and such a load fills the disk.
            let first = tokio::select! {
                biased;
                _ = look.tick() => {
                    self.look_at_free_space();
                    continue;
                }
                first = next(&mut carried, &mut submissions) => first,
            };
            let Some(first) = first else {
                return;
            };
            carried = self.commit(first, &mut submissions).await;
        }
    }

    /// Commits `first` with the submissions that wait after it. Returns one that no longer fits.
    async fn commit(
        &self,
        first: Submission,
        submissions: &mut mpsc::UnboundedReceiver<Submission>,
    ) -> Option<Submission> {
        let mut bytes = first.bytes;
        let mut sync = first.durability == Durability::Synced;
        let mut batch = first.batch;
        let mut waiting = vec![(first.done, first._room)];
        let mut left_over = None;
        while let Ok(next) = submissions.try_recv() {
            if bytes + next.bytes > self.options.batch_bytes {
                left_over = Some(next);
                break;
            }
            bytes += next.bytes;
            sync |= next.durability == Durability::Synced;
            batch.changes.extend(next.batch.changes);
            waiting.push((next.done, next._room));
        }
        let sync = sync && !is_planted(PlantedBug::SkipTheSync);
        let together = waiting.len() as u64;
        self.counters
            .submissions
            .fetch_add(together, Ordering::Relaxed);
        let result = self.write(batch, sync, bytes).await;
        for (done, _room) in waiting {
            done(result.clone());
        }
        left_over
    }

    async fn write(&self, batch: ChangeBatch, sync: bool, bytes: usize) -> Result<(), DiskError> {
        if let DiskStatus::Failed(reason) = &*self.status.borrow() {
            return Err(DiskError::Failed(reason.clone()));
        }
        let began = Instant::now();
        let result = self.disk.commit(batch, sync).await;
        match &result {
            Ok(()) => {
                if sync {
                    self.counters.sync_time.took(began.elapsed());
                }
                self.counters.batch_bytes.observe(bytes as u64);
                self.counters.batches.fetch_add(1, Ordering::Relaxed);
                self.counters
                    .syncs
                    .fetch_add(u64::from(sync), Ordering::Relaxed);
                self.counters
                    .bytes
                    .fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(_) if is_planted(PlantedBug::FailedWriteIsFine) => return Ok(()),
            // Never retried: after a failed fsync the page cache may claim data that the disk lost.
            Err(error) => {
                if let DiskError::Damaged(what) = error {
                    note(&self.damage, what);
                }
                self.status
                    .send_replace(DiskStatus::Failed(error.to_string()));
            }
        }
        result
    }

    fn look_at_free_space(&self) {
        let full = match self.disk.free_bytes() {
            Ok(free) => {
                let total = self.disk.total_bytes().unwrap_or(0);
                self.counters.free_bytes.store(free, Ordering::Relaxed);
                self.counters.total_bytes.store(total, Ordering::Relaxed);
                free < self.options.free_space_floor_bytes
            }
            // A disk that can't report its free space does not count as full; a commit fails if it is.
            Err(_) => false,
        };
        let now = if full {
            DiskStatus::Full
        } else {
            DiskStatus::Healthy
        };
        self.status.send_if_modified(|status| {
            let changes = !matches!(status, DiskStatus::Failed(_)) && *status != now;
            if changes {
                *status = now;
            }
            changes
        });
    }
}

/// The submission left over, or the next one; `None` once all senders are dropped.
async fn next(
    carried: &mut Option<Submission>,
    submissions: &mut mpsc::UnboundedReceiver<Submission>,
) -> Option<Submission> {
    match carried.take() {
        Some(submission) => Some(submission),
        None => submissions.recv().await,
    }
}

fn size(batch: &ChangeBatch) -> usize {
    let of = |change: &Change| match change {
        Change::Put { key, head, body } => key.len() + head.len() + body.len(),
        Change::Delete { key } => key.len(),
        Change::DeleteRange { range } => range.start.len() + range.end.len(),
    };
    batch
        .changes
        .iter()
        .map(|change| of(change) + CHANGE_BYTES)
        .sum()
}

fn closed() -> DiskError {
    DiskError::Failed("store is closed".to_string())
}

fn note(damage: &watch::Sender<Option<String>>, what: &str) {
    damage.send_if_modified(|damage| {
        let first = damage.is_none();
        damage.get_or_insert_with(|| what.to_owned());
        first
    });
}
