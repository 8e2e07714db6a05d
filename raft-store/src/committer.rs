//! The one writer of a node. Log appends, votes, truncations and state effects of all groups come
//! through here, in order; what waits is put into one batch and synced once, so one fsync serves
//! every partition and every producer that waited.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ropewalk_proto::mistake::{Mistake, made};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::disk::{Batch, Change, Disk, DiskError};
use crate::histogram::{Histogram, SIZE_BOUNDS_BYTES};

/// What a change costs of the queue beside its bytes.
const CHANGE_BYTES: usize = 64;

/// Bounds of the committer.
#[derive(Debug, Clone)]
pub struct CommitterOptions {
    /// Bytes that may wait; past it, [`Committer::submit`] waits for room.
    pub queue_bytes: usize,
    /// The most bytes put into one batch, unless a single submission is larger.
    pub batch_bytes: usize,
    /// Below this much free space the status is [`DiskStatus::Full`].
    pub free_space_floor_bytes: u64,
    /// How often free space is looked at.
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

/// Whether a write must survive a power loss before it counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Done once it, and all before it, is synced.
    Synced,
    /// Done once it is written; it is synced with whatever is synced next.
    Unsynced,
}

/// What the disk is good for right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskStatus {
    /// Reads and writes.
    Healthy,
    /// Less than the floor is free. The committer still writes; producers are to be refused.
    Full,
    /// A commit failed: no write is taken until the disk is opened again.
    Failed(String),
}

/// What the committer has done, and what replicas have applied, for metrics.
#[derive(Debug)]
pub struct CommitCounters {
    /// Batches written.
    pub batches: AtomicU64,
    /// Of those, synced ones: one fsync each.
    pub syncs: AtomicU64,
    /// Bytes of keys and values.
    pub bytes: AtomicU64,
    /// Submissions written: so many shared each batch.
    pub submissions: AtomicU64,
    /// Free space, at the last look; `u64::MAX` before the first.
    pub free_bytes: AtomicU64,
    /// Free and taken space together; 0 where the disk can't tell.
    pub total_bytes: AtomicU64,
    /// How long each synced write took the disk.
    pub sync_time: Histogram,
    /// How large each batch was.
    pub batch_bytes: Histogram,
    /// How long it took to apply what was committed: each part that is answered together.
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
    batch: Batch,
    durability: Durability,
    done: Done,
    bytes: usize,
    _room: OwnedSemaphorePermit,
}

/// The way to the committer. Cheap to clone; the committer ends when [`Committer::close`] is
/// called or the last handle is dropped.
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
        // The queue has no bound of its own: every submission holds its bytes of `room`.
        let (queue, submissions) = mpsc::unbounded_channel();
        let (status, watched) = watch::channel(DiskStatus::Healthy);
        let damage = watch::Sender::new(None);
        let counters = Arc::new(CommitCounters::default());
        // A submission takes its room as a `u32`.
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

    /// Queues a batch, waiting only for room. `done` is called once it has happened, after every
    /// earlier submission's, on the committer's own task: it must not block.
    pub async fn submit(
        &self,
        batch: Batch,
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

    /// Queues a batch and waits until it has happened.
    pub async fn commit(&self, batch: Batch, durability: Durability) -> Result<(), DiskError> {
        let (done, happened) = oneshot::channel();
        // The receiver may have been dropped with its future; the write happens all the same.
        self.submit(batch, durability, |result| drop(done.send(result)))
            .await;
        happened.await.unwrap_or_else(|_| Err(closed()))
    }

    /// What of the disk as a whole, and not of one replica, was found damaged: the first finding, for
    /// good.
    pub fn damage(&self) -> watch::Receiver<Option<String>> {
        self.damage.subscribe()
    }

    /// Tells of such damage.
    pub fn note_damage(&self, what: &str) {
        note(&self.damage, what);
    }

    /// The disk's status, as of the last commit or look at its free space.
    pub fn status(&self) -> watch::Receiver<DiskStatus> {
        self.status.clone()
    }

    /// Bytes that wait, or are being written, and how many may.
    pub fn queued_bytes(&self) -> (usize, usize) {
        let free = self.room.available_permits();
        (self.queue_bytes.saturating_sub(free), self.queue_bytes)
    }

    /// What has been done so far.
    pub fn counters(&self) -> &CommitCounters {
        &self.counters
    }

    /// Takes no more, and waits until what was queued has happened and is synced.
    pub async fn close(&self) {
        let _ = self.commit(Batch::default(), Durability::Synced).await;
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
            // The look comes first: under a load that always leaves something over, it would
            // otherwise never come, and that is the load that fills a disk.
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

    /// Commits `first` with what waits behind it; returns a submission that no longer fitted.
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
        let sync = sync && !made(Mistake::SkipTheSync);
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

    async fn write(&self, batch: Batch, sync: bool, bytes: usize) -> Result<(), DiskError> {
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
            Err(_) if made(Mistake::FailedWriteIsFine) => return Ok(()),
            // Never retried: after a failed fsync the page cache may claim what the disk lost.
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
            // A disk that can't tell its space is not for that reason full; commits will tell.
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

/// What was left over, or what comes next; `None` once nothing can come any more.
async fn next(
    carried: &mut Option<Submission>,
    submissions: &mut mpsc::UnboundedReceiver<Submission>,
) -> Option<Submission> {
    match carried.take() {
        Some(submission) => Some(submission),
        None => submissions.recv().await,
    }
}

fn size(batch: &Batch) -> usize {
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
    DiskError::Failed("the store is closed".to_string())
}

fn note(damage: &watch::Sender<Option<String>>, what: &str) {
    damage.send_if_modified(|damage| {
        let first = damage.is_none();
        damage.get_or_insert_with(|| what.to_owned());
        first
    });
}
