//! A machine, entries, and a disk that remembers every state that a crash could leave.

pub mod numbered;
#[macro_use]
mod reads;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream;
use openraft::EntryPayload;
use openraft::storage::RaftStateMachine;
use parking_lot::Mutex;
use ropewalk_machines::machine::MachineError;
use ropewalk_machines::{Applied, Machine, StateWrite};
use ropewalk_proto::command::{Command, Reply, Stamp};
use ropewalk_proto::ids::{GroupId, ReplicaId};
use ropewalk_raft_store::disk::{ChangeBatch, Disk, DiskError, MemoryDisk};
use ropewalk_raft_store::types::{Entry, LogId};
use ropewalk_raft_store::{Replica, StateMachine, Store, StoreError, StoreOptions};

pub const GROUP: GroupId = GroupId(7);
pub const REPLICA: ReplicaId = ReplicaId(3);
pub const TERM: u64 = 1;

/// Sums the indices it applied. It keeps one effect for each of the last few entries, so effects are
/// deleted too. Every fourth entry is a checkpoint.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Sum {
    pub applied: u64,
    pub sum: u64,
    /// Result of [`Machine::purgeable_index`].
    pub purgeable: u64,
}

const SUM_KEY: &[u8] = b"sum";

/// Number of single entries whose effects are kept.
pub const KEPT: u64 = 3;

fn entry_key(index: u64) -> Bytes {
    Bytes::from(format!("entry {index:08}"))
}

impl Sum {
    /// The expected state after everything up to `index` is applied; the first entry is 0.
    pub fn after(index: u64) -> Sum {
        Sum {
            applied: index,
            sum: (0..=index).sum(),
            purgeable: index.saturating_sub(4),
        }
    }

    fn read(&mut self, mut state: Bytes) -> Result<(), MachineError> {
        if state.len() != 24 {
            return Err(MachineError::Damaged("not three numbers".to_string()));
        }
        self.applied = state.get_u64();
        self.sum = state.get_u64();
        self.purgeable = state.get_u64();
        Ok(())
    }

    fn own(&self) -> StateWrite {
        StateWrite {
            key: Bytes::from_static(SUM_KEY),
            value: Some(self.checkpoint()),
        }
    }

    fn kept(&self) -> Range<u64> {
        (self.applied + 1).saturating_sub(KEPT)..self.applied + 1
    }
}

fn of_entry(index: u64) -> StateWrite {
    StateWrite {
        key: entry_key(index),
        value: Some(Bytes::new()),
    }
}

impl Machine for Sum {
    fn load(&mut self, applied: u64, effects: Vec<(Bytes, Bytes)>) -> Result<(), MachineError> {
        let (own, entries): (Vec<_>, Vec<_>) =
            effects.into_iter().partition(|(key, _)| key == SUM_KEY);
        for (_, value) in own {
            self.read(value)?;
        }
        let keys: Vec<Bytes> = entries.into_iter().map(|(key, _)| key).collect();
        let expected: Vec<Bytes> = self.kept().map(entry_key).collect();
        if self.applied != applied || keys != expected {
            let is = format!("{self:?} with {keys:?}, which are not those as of {applied}");
            return Err(MachineError::Damaged(is));
        }
        Ok(())
    }

    fn apply(
        &mut self,
        index: u64,
        _term: u64,
        _entry_bytes: u64,
        _command: Option<&Command>,
    ) -> Result<Applied, MachineError> {
        self.applied = index;
        self.sum += index;
        self.purgeable = index.saturating_sub(4);
        let mut effects = vec![self.own(), of_entry(index)];
        if let Some(old) = index.checked_sub(KEPT) {
            effects.push(StateWrite {
                key: entry_key(old),
                value: None,
            });
        }
        Ok(Applied {
            reply: Reply::Done,
            effects,
            checkpoint: index.is_multiple_of(4),
        })
    }

    fn checkpoint(&self) -> Bytes {
        let mut state = BytesMut::new();
        state.put_u64(self.applied);
        state.put_u64(self.sum);
        state.put_u64(self.purgeable);
        state.freeze()
    }

    fn restore(&mut self, checkpoint: Bytes) -> Result<Vec<StateWrite>, MachineError> {
        self.read(checkpoint)?;
        let kept = self.kept().map(of_entry);
        Ok(std::iter::once(self.own()).chain(kept).collect())
    }

    fn purgeable_index(&self) -> u64 {
        self.purgeable
    }
}

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// The entry at `index`, with bytes that differ from those of any other.
pub fn entry(term: u64, index: u64) -> Entry {
    let text = format!("entry {index} of term {term};");
    let repeats = 1 + (index as usize % 5) * 40;
    let command = Command::Append {
        stamp: Stamp {
            leader_time_ms: index as i64,
            ..Stamp::default()
        },
        batch: Bytes::from(text.repeat(repeats)),
    };
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(command),
    }
}

pub fn entries(term: u64, range: Range<u64>) -> Vec<Entry> {
    range.map(|index| entry(term, index)).collect()
}

pub async fn open_store(disk: Arc<dyn Disk>) -> Store {
    let options = StoreOptions {
        // No synced entry stays in memory, so reads come from the disk.
        tail_bytes: 0,
        ..StoreOptions::default()
    };
    Store::open(disk, options).await.expect("the store opens")
}

pub async fn try_open(disk: Arc<dyn Disk>) -> Result<Replica<Sum>, StoreError> {
    open_store(disk)
        .await
        .open_replica(GROUP, REPLICA, Sum::default())
        .await
}

pub async fn open(disk: Arc<dyn Disk>) -> Replica<Sum> {
    try_open(disk).await.expect("the replica opens")
}

pub async fn apply(state: &mut StateMachine<Sum>, entries: Vec<Entry>) {
    let entries = entries.into_iter().map(|entry| Ok((entry, None)));
    let applied = state.apply(stream::iter(entries)).await;
    applied.expect("the entries apply");
}

/// A memory disk that keeps an image of itself after every commit: the states that a crash may leave.
#[derive(Debug, Default)]
pub struct Recorder {
    inner: MemoryDisk,
    images: Mutex<Vec<Arc<MemoryDisk>>>,
    synced: AtomicUsize,
}

impl Recorder {
    /// An empty disk. The image after `n` commits is at position `n`.
    pub fn new() -> Arc<Recorder> {
        let recorder = Recorder::default();
        recorder.images.lock().push(Arc::new(MemoryDisk::new()));
        Arc::new(recorder)
    }

    /// Number of synced commits. No later crash leaves an earlier image.
    pub fn synced(&self) -> usize {
        self.synced.load(Ordering::SeqCst)
    }

    pub fn images(&self) -> Vec<Arc<MemoryDisk>> {
        self.images.lock().clone()
    }

    /// A copy of the current disk, which others may change.
    pub fn now(&self) -> Arc<MemoryDisk> {
        Arc::new(self.inner.crash_image(usize::MAX))
    }
}

impl Disk for Recorder {
    reads_of_inner!();

    fn commit(&self, batch: ChangeBatch, sync: bool) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            self.inner.commit(batch, false).await?;
            let count = {
                let mut images = self.images.lock();
                images.push(Arc::new(self.inner.crash_image(usize::MAX)));
                images.len() - 1
            };
            // Other tasks run, and may crash, between the write and its sync.
            tokio::task::yield_now().await;
            if sync {
                self.inner.commit(ChangeBatch::default(), true).await?;
                self.synced.store(count, Ordering::SeqCst);
            }
            Ok(())
        })
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.inner.free_bytes()
    }
}
