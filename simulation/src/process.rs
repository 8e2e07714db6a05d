//! One host's process as faults see it: the gate it lives behind, the trap that stops it at a
//! chosen moment, and the way to ask it to end.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use ropewalk_node::config::Limits;
use ropewalk_raft_store::disk::{Batch, ScanLimit};
use ropewalk_raft_store::inspect::Touched;
use ropewalk_raft_store::{Disk, DiskError};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::disk::DiskFault;
use crate::gate::Gate;

/// What stays the same of a host's processes, one after the other.
#[derive(Debug, Default)]
pub struct Process {
    /// What all it says goes through.
    pub gate: Arc<Gate>,
    /// What may stop it.
    pub trap: Arc<Trap>,
    /// What it asked of its disk.
    pub calls: Arc<DiskCalls>,
    stop: Mutex<CancellationToken>,
    stopped: AtomicBool,
    limits: Mutex<Option<Limits>>,
}

impl Process {
    /// A process begins: its gate is open. Returns what asks it to end.
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

    /// It ended in good order.
    pub fn has_stopped(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether it ended in good order.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// What the next process is given as its limits; `None` for what it had at first.
    pub fn set_limits(&self, limits: Option<Limits>) {
        *self.limits.lock() = limits;
    }

    /// The limits of a process that begins, where they are not what it had at first.
    pub fn limits(&self) -> Option<Limits> {
        self.limits.lock().clone()
    }

    /// A disk behind gate and trap.
    pub fn disk(&self, disk: Arc<dyn Disk>) -> Arc<dyn Disk> {
        Arc::new(Guarded {
            disk,
            gate: self.gate.clone(),
            trap: self.trap.clone(),
            calls: self.calls.clone(),
        })
    }
}

/// What processes asked of their disk: it tells whether a fault of it was felt.
#[derive(Debug, Default)]
pub struct DiskCalls {
    failed: AtomicU64,
    synced: AtomicU64,
    measured: AtomicU64,
}

impl DiskCalls {
    /// Forgets what was asked so far.
    pub fn forget(&self) {
        for calls in [&self.failed, &self.synced, &self.measured] {
            calls.store(0, Ordering::Relaxed);
        }
    }

    /// A call failed.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether something was asked meanwhile that a fault spoils.
    pub fn felt(&self, fault: DiskFault) -> bool {
        let calls: &[&AtomicU64] = match fault {
            DiskFault::None => &[],
            DiskFault::Io => &[&self.failed],
            // Mostly it is seen to be full before anything is written to it.
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
    /// Entries of a log are written and not synced.
    Append,
    /// A vote is durable, and nobody has heard of it yet.
    Vote,
    /// A snapshot of another replica is written and not synced.
    Install,
    /// Something is read from the disk or written to it, as a process does that has just begun.
    Recovery,
}

/// Stops a process at a chosen moment: its gate closes, and what it was about to do never ends.
#[derive(Debug, Default)]
pub struct Trap {
    set: Mutex<Option<(Moment, u32)>>,
    sprung: AtomicBool,
}

impl Trap {
    /// Sets it for the `count`th such moment from now.
    pub fn set(&self, moment: Moment, count: u32) {
        *self.set.lock() = Some((moment, count.max(1)));
        self.sprung.store(false, Ordering::Relaxed);
    }

    /// Takes it away.
    pub fn remove(&self) {
        *self.set.lock() = None;
        self.sprung.store(false, Ordering::Relaxed);
    }

    /// Whether it stopped the process.
    pub fn has_sprung(&self) -> bool {
        self.sprung.load(Ordering::Relaxed)
    }

    /// Whether it springs now, at such a moment.
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

    /// The moment a batch is, if a trap springs at it.
    fn sprung_by(&self, batch: &Batch) -> Option<Moment> {
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

    /// The committer has one commit under way at a time, so that none overtakes another that is
    /// held up at the gate.
    fn commit(&self, batch: Batch, sync: bool) -> BoxFuture<'_, Result<(), DiskError>> {
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
