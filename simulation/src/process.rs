//! One host's process as faults see it: its gate, the trap that stops it at a chosen moment, and the means to
//! ask it to end.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use ropewalk_node::config::Limits;
use ropewalk_raft_store::disk::{ChangeBatch, ScanLimit};
use ropewalk_raft_store::inspect::Touched;
use ropewalk_raft_store::{Disk, DiskError};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::disk::DiskFault;
use crate::gate::Gate;

/// The part of a host's processes that outlives each of them.
#[derive(Debug, Default)]
pub struct Process {
    /// Gate that all its traffic passes.
    pub gate: Arc<Gate>,
    /// Trap that may stop it.
    pub trap: Arc<Trap>,
    /// Counts of its disk calls.
    pub calls: Arc<DiskCalls>,
    stop: Mutex<CancellationToken>,
    stopped: AtomicBool,
    limits: Mutex<Option<Limits>>,
}

impl Process {
    /// Begins a process: its gate is open. Returns the token that asks it to end.
    pub fn begin(&self) -> CancellationToken {
        self.gate.open();
        self.stopped.store(false, Ordering::Relaxed);
        let stop = CancellationToken::new();
        *self.stop.lock() = stop.clone();
        stop
    }

    /// Asks it to end in good order.
    pub fn stop(&self) {
        self.stopped.store(false, Ordering::Relaxed);
        self.stop.lock().cancel();
    }

    /// Records that it ended in good order.
    pub fn has_stopped(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// True if it ended in good order.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Sets the limits of the next process; `None` for the original ones.
    pub fn set_limits(&self, limits: Option<Limits>) {
        *self.limits.lock() = limits;
    }

    /// Limits of a process that begins, if they differ from the original ones.
    pub fn limits(&self) -> Option<Limits> {
        self.limits.lock().clone()
    }

    /// The disk, behind gate and trap.
    pub fn disk(&self, disk: Arc<dyn Disk>) -> Arc<dyn Disk> {
        Arc::new(Guarded {
            disk,
            gate: self.gate.clone(),
            trap: self.trap.clone(),
            calls: self.calls.clone(),
        })
    }
}

/// Counts of disk calls. They show that a disk fault took effect.
#[derive(Debug, Default)]
pub struct DiskCalls {
    failed: AtomicU64,
    synced: AtomicU64,
    measured: AtomicU64,
}

impl DiskCalls {
    /// Resets the counts.
    pub fn forget(&self) {
        for calls in [&self.failed, &self.synced, &self.measured] {
            calls.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a failed call.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// True if a call that the fault affects was made since the counts were reset.
    pub fn felt(&self, fault: DiskFault) -> bool {
        let calls: &[&AtomicU64] = match fault {
            DiskFault::None => &[],
            DiskFault::Io => &[&self.failed],
            // Usually the node sees a full disk in its measurements before it writes to it.
            DiskFault::Full => &[&self.failed, &self.measured],
            DiskFault::LowSpace => &[&self.measured],
            DiskFault::SlowMs(_) => &[&self.synced],
        };
        calls.iter().any(|calls| calls.load(Ordering::Relaxed) > 0)
    }
}

/// A moment in the life of a process at which it may be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moment {
    /// Entries of a log are written but not synced.
    Append,
    /// A vote is durable, and no other node has received it yet.
    Vote,
    /// A snapshot of another replica is written but not synced.
    Install,
    /// A process that has just begun reads from the disk or writes to it.
    Recovery,
}

/// Stops a process at a chosen moment. Its gate closes, and its pending call never ends.
#[derive(Debug, Default)]
pub struct Trap {
    set: Mutex<Option<(Moment, u32)>>,
    sprung: AtomicBool,
}

impl Trap {
    /// Sets the trap for the `count`th such moment from now.
    pub fn set(&self, moment: Moment, count: u32) {
        *self.set.lock() = Some((moment, count.max(1)));
        self.sprung.store(false, Ordering::Relaxed);
    }

    /// Removes the trap.
    pub fn remove(&self) {
        *self.set.lock() = None;
        self.sprung.store(false, Ordering::Relaxed);
    }

    /// True if it stopped the process.
    pub fn has_sprung(&self) -> bool {
        self.sprung.load(Ordering::Relaxed)
    }

    /// True if the trap springs now, at such a moment.
    fn springs(&self, now: Moment) -> bool {
        let mut set = self.set.lock();
        let Some((moment, left)) = set.as_mut().filter(|(moment, _)| *moment == now) else {
            return false;
        };
        *left -= 1;
        if *left > 0 {
            return false;
        }
        tracing::debug!(?moment, "a trap springs");
        *set = None;
        self.sprung.store(true, Ordering::Relaxed);
        true
    }
}

/// A disk behind its process's gate.
#[derive(Debug)]
struct Guarded {
    disk: Arc<dyn Disk>,
    gate: Arc<Gate>,
    trap: Arc<Trap>,
    calls: Arc<DiskCalls>,
}

impl Guarded {
    async fn pass(&self) {
        if self.trap.springs(Moment::Recovery) {
            self.gate.close();
        }
        self.gate.pass().await;
    }

    /// Moment of a batch, if the trap springs at it.
    fn sprung_by(&self, batch: &ChangeBatch) -> Option<Moment> {
        let touched = Touched::by(batch);
        let moments = [
            (touched.snapshot, Moment::Install),
            (touched.vote, Moment::Vote),
            (touched.log, Moment::Append),
        ];
        let mut met = moments.into_iter().filter(|(is_one, _)| *is_one);
        met.find(|(_, moment)| self.trap.springs(*moment))
            .map(|(_, moment)| moment)
    }
}

impl Disk for Guarded {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, DiskError>> {
        Box::pin(async move {
            self.pass().await;
            self.disk.get(key).await
        })
    }

    fn scan(
        &self,
        range: Range<Bytes>,
        limit: ScanLimit,
    ) -> BoxFuture<'_, Result<Vec<(Bytes, Bytes)>, DiskError>> {
        Box::pin(async move {
            self.pass().await;
            self.disk.scan(range, limit).await
        })
    }

    fn last(
        &self,
        range: Range<Bytes>,
    ) -> BoxFuture<'_, Result<Option<(Bytes, Bytes)>, DiskError>> {
        Box::pin(async move {
            self.pass().await;
            self.disk.last(range).await
        })
    }

    /// The committer has one commit under way at a time, so none overtakes another that is held up at the
    /// gate.
    fn commit(&self, batch: ChangeBatch, sync: bool) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            self.pass().await;
            let Some(moment) = self.sprung_by(&batch) else {
                let committed = self.disk.commit(batch, sync).await;
                match &committed {
                    Ok(()) if sync => self.calls.synced.fetch_add(1, Ordering::Relaxed),
                    Ok(()) => 0,
                    Err(_) => self.calls.failed.fetch_add(1, Ordering::Relaxed),
                };
                return committed;
            };
            let sync = sync && moment == Moment::Vote;
            let committed = self.disk.commit(batch, sync).await;
            self.gate.close();
            self.gate.pass().await;
            committed
        })
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.calls.measured.fetch_add(1, Ordering::Relaxed);
        self.disk.free_bytes()
    }
}
