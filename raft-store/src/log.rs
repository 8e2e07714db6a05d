//! Log, vote and marks of one replica: in memory, on the disk, and the path between them.
//!
//! All writes of a replica pass through here into the node's committer, in order. `openraft_log.rs` answers
//! openraft's calls on the log; the state machine's own writes come from `openraft_state_machine.rs`.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use ropewalk_proto::ids::{GroupId, ReplicaId};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use tokio::sync::{RwLock, oneshot, watch};
use tokio::time::Instant;

use crate::committer::{Committer, Durability};
use crate::disk::{Change, ChangeBatch, Disk, DiskError, ScanLimit};
use crate::entry::{self, StoredEntry};
use crate::keys;
use crate::log_cache::{Evict, LogCache, LogCacheBudget};
use crate::store::StoreOptions;
use crate::traces::Traces;
use crate::types::{Entry, LogId, Vote};
use crate::values::{self, Purged};

/// Parts that the replicas of a node share.
pub(crate) struct NodeDisk {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) committer: Committer,
    pub(crate) options: StoreOptions,
    pub(crate) tails: LogCacheBudget<ReplicaLog>,
    pub(crate) traces: Traces,
}

pub(crate) struct ReplicaLog {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    node: Arc<NodeDisk>,
    /// False once closed. A submission holds it shared, so none can follow a close.
    writable: RwLock<bool>,
    /// Held until the removal of entries at the log's beginning is queued, and while entries are
    /// overwritten: so no entry is written back after its removal.
    beginning: tokio::sync::Mutex<()>,
    marks: Mutex<LogBounds>,
    damage: watch::Sender<Option<String>>,
}

/// Bounds of the log, and the values that belong to them.
#[derive(Debug, Default)]
pub(crate) struct LogBounds {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<Purged>,
    /// Index of the log's first entry. openraft begins at 0; its store tests do not always.
    pub(crate) begin: u64,
    pub(crate) last: Option<LogId>,
    /// Length of the log in bytes through `last`.
    pub(crate) end_bytes: u64,
    pub(crate) appends: u64,
    pub(crate) tail: LogCache,
}

impl LogBounds {
    pub(crate) fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    /// First index that is not purged.
    pub(crate) fn first(&self) -> u64 {
        self.purged
            .map_or(self.begin, |purged| purged.log_id.index + 1)
    }

    /// Drops the log through `purged`. A shorter log ends there.
    pub(crate) fn purge(&mut self, purged: Purged) {
        let before = self.purged.map_or(0, |before| before.log_id.index);
        let index = purged.log_id.index;
        assert!(
            before <= index,
            "a purge up to {index} follows one to {before}"
        );
        self.purged = Some(purged);
        self.tail.drop_through(purged.log_id.index);
        if self.next() <= purged.log_id.index {
            self.last = Some(purged.log_id);
            self.end_bytes = purged.end_bytes;
        }
    }
}

impl fmt::Debug for NodeDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeDisk").finish_non_exhaustive()
    }
}

impl fmt::Debug for ReplicaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaLog")
            .field("group", &self.group)
            .field("replica", &self.replica)
            .finish_non_exhaustive()
    }
}

impl Evict for ReplicaLog {
    fn evict(&self, append: u64) -> bool {
        self.marks.lock().tail.evict(append)
    }
}

impl NodeDisk {
    /// Submits a batch and waits until it is written or synced.
    pub(crate) async fn commit(
        &self,
        batch: ChangeBatch,
        durability: Durability,
    ) -> Result<(), DiskError> {
        self.committer.commit(batch, durability).await
    }
}

impl ReplicaLog {
    pub(crate) fn new(
        group: GroupId,
        replica: ReplicaId,
        node: Arc<NodeDisk>,
        marks: LogBounds,
    ) -> ReplicaLog {
        ReplicaLog {
            group,
            replica,
            node,
            writable: RwLock::new(true),
            beginning: tokio::sync::Mutex::default(),
            marks: Mutex::new(marks),
            damage: watch::Sender::new(None),
        }
    }

    pub(crate) fn marks(&self) -> parking_lot::MutexGuard<'_, LogBounds> {
        self.marks.lock()
    }

    pub(crate) async fn hold_beginning(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.beginning.lock().await
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.node.disk
    }

    pub(crate) fn options(&self) -> &StoreOptions {
        &self.node.options
    }

    /// First damage found on the disk. It is never cleared.
    pub(crate) fn damage(&self) -> &watch::Sender<Option<String>> {
        &self.damage
    }

    /// Records the damage in a result, and passes the result on.
    pub(crate) fn noting<T>(&self, read: Result<T, DiskError>) -> Result<T, DiskError> {
        if let Err(DiskError::Damaged(what)) = &read {
            self.note_damage(what);
        }
        read
    }

    pub(crate) fn note_damage(&self, what: &str) {
        self.damage.send_if_modified(|damage| {
            let first = damage.is_none();
            damage.get_or_insert_with(|| what.to_owned());
            first
        });
    }

    /// Records the time that applying a part of the log took.
    pub(crate) fn applied_since(&self, began: Option<Instant>) {
        if let Some(began) = began {
            let counters = self.node.committer.counters();
            counters.apply_time.took(began.elapsed());
        }
    }

    /// Ends this handle's right to write: the replica is being reopened, quarantined or destroyed.
    pub(crate) async fn close(&self) {
        *self.writable.write().await = false;
    }

    /// Submits a batch to the committer, in the order of the calls. It waits only for room.
    pub(crate) async fn submit(
        &self,
        batch: ChangeBatch,
        durability: Durability,
        done: impl FnOnce(Result<(), DiskError>) + Send + 'static,
    ) {
        let writable = self.writable.read().await;
        if *writable {
            self.node.committer.submit(batch, durability, done).await;
        } else {
            done(Err(self.closed()));
        }
    }

    pub(crate) async fn commit(
        &self,
        batch: ChangeBatch,
        durability: Durability,
    ) -> Result<(), DiskError> {
        let (tx, rx) = oneshot::channel();
        let done = move |result| {
            // The caller may be gone; the write happens anyway.
            let _ = tx.send(result);
        };
        self.submit(batch, durability, done).await;
        rx.await.unwrap_or_else(|_| Err(self.closed()))
    }

    fn closed(&self) -> DiskError {
        DiskError::Failed(format!(
            "replica {} is closed for writes: it was closed, opened again or destroyed",
            self.replica
        ))
    }

    /// Appends entries. They are readable once this returns, and synced once `done` reports success.
    pub(crate) async fn append(
        self: &Arc<Self>,
        entries: Vec<Entry>,
        done: impl FnOnce(Result<(), DiskError>) + Send + 'static,
    ) -> Result<(), DiskError> {
        let spans = self.node.traces.syncing(&entries);
        let (append, stored) = self.number(entries)?;
        let changes = stored.iter().map(|stored| entry::put(self.replica, stored));
        let batch = ChangeBatch {
            changes: changes.collect(),
        };
        let log = Arc::clone(self);
        let synced = move |result: Result<(), DiskError>| {
            drop(spans);
            if result.is_ok() {
                log.marks.lock().tail.mark_synced(append);
            }
            done(result);
        };
        // Readable only once queued: what is read may be applied, and effects must follow their entries.
        let durability = match is_planted(PlantedBug::FlushedEarly) {
            false => Durability::Synced,
            true => Durability::Unsynced,
        };
        self.submit(batch, durability, synced).await;
        self.hold(append, stored);
        Ok(())
    }

    /// Numbers entries, which must continue the log without a gap.
    fn number(&self, entries: Vec<Entry>) -> Result<(u64, Vec<StoredEntry>), DiskError> {
        let mut marks = self.marks.lock();
        let first = match marks.last {
            Some(_) => marks.next(),
            None => entries.first().map_or(0, |entry| entry.log_id.index),
        };
        let mut end_bytes = marks.end_bytes;
        let mut stored = Vec::with_capacity(entries.len());
        for (entry, index) in entries.into_iter().zip(first..) {
            if entry.log_id.index != index {
                return Err(DiskError::Failed(format!(
                    "replica {}: entry {} was appended where entry {index} belongs",
                    self.replica, entry.log_id.index
                )));
            }
            let bytes = entry::entry_bytes(&entry);
            end_bytes += bytes;
            stored.push(StoredEntry {
                entry,
                bytes,
                end_bytes,
            });
        }
        if marks.last.is_none() {
            marks.begin = first;
        }
        marks.appends += 1;
        Ok((marks.appends, stored))
    }

    fn hold(self: &Arc<Self>, append: u64, stored: Vec<StoredEntry>) {
        let count = stored.len() as u64;
        let bytes = stored.iter().map(|stored| stored.bytes).sum();
        {
            let mut marks = self.marks.lock();
            for stored in stored {
                let (index, next) = (stored.entry.log_id.index, marks.next());
                let is_next = marks.last.is_none() || index == next;
                assert!(is_next, "entry {index} is held where {next} belongs");
                marks.last = Some(stored.entry.log_id);
                marks.end_bytes = stored.end_bytes;
                marks.tail.push(append, stored);
            }
        }
        self.node
            .tails
            .claim(Arc::downgrade(self), append, count, bytes);
    }

    /// Truncates the log after `last`; removes all entries if `last` is `None`.
    pub(crate) async fn truncate_after(&self, last: Option<LogId>) -> Result<(), DiskError> {
        let first_gone = last.map_or(0, |last| last.index + 1);
        if first_gone >= self.marks.lock().next() {
            return Ok(());
        }
        let committed = self.marks.lock().committed;
        if let Some(committed) = committed.filter(|committed| committed.index >= first_gone) {
            // No assertion: a faulty peer can cause this.
            return Err(DiskError::Failed(format!(
                "replica {}: entry {} is committed, and a truncation from {first_gone} on would \
                 remove it",
                self.replica, committed.index
            )));
        }
        let end_bytes = match first_gone.checked_sub(1) {
            None => 0,
            Some(index) => self.end_bytes(index).await?,
        };
        {
            let mut marks = self.marks.lock();
            marks.tail.truncate(first_gone);
            marks.last = last;
            marks.end_bytes = end_bytes;
        }
        if is_planted(PlantedBug::TruncateInMemory) {
            return Ok(());
        }
        let range = keys::log(self.replica, first_gone, u64::MAX);
        let batch = ChangeBatch {
            changes: vec![Change::DeleteRange { range }],
        };
        self.commit(batch, Durability::Unsynced).await
    }

    /// Purges the entries through `to`.
    pub(crate) async fn purge(&self, to: LogId) -> Result<(), DiskError> {
        let (first, purged) = {
            let marks = self.marks.lock();
            (marks.first(), marks.purged)
        };
        if purged.is_some_and(|purged| to.index <= purged.log_id.index) {
            return Ok(());
        }
        let purged = self.purged_at(to).await?;
        let _beginning = self.hold_beginning().await;
        self.marks.lock().purge(purged);
        let last = to.index + u64::from(is_planted(PlantedBug::PurgeOneTooMany));
        let range = keys::log(self.replica, first, last);
        let batch = ChangeBatch {
            changes: vec![
                Change::DeleteRange { range },
                values::put_purged(self.replica, purged),
            ],
        };
        self.commit(batch, Durability::Unsynced).await
    }

    /// Mark of a log purged through `log_id`, which may be past the log's end.
    pub(crate) async fn purged_at(&self, log_id: LogId) -> Result<Purged, DiskError> {
        let beyond = {
            let marks = self.marks.lock();
            (log_id.index >= marks.next()).then_some(marks.end_bytes)
        };
        let end_bytes = match beyond {
            Some(end_bytes) => end_bytes,
            None => self.end_bytes(log_id.index).await?,
        };
        Ok(Purged { log_id, end_bytes })
    }

    /// Length of the log in bytes through the entry at `index`.
    async fn end_bytes(&self, index: u64) -> Result<u64, DiskError> {
        {
            let marks = self.marks.lock();
            if let Some(stored) = marks.tail.get(index) {
                return Ok(stored.end_bytes);
            }
            match marks.purged {
                Some(purged) if purged.log_id.index == index => return Ok(purged.end_bytes),
                None if index < marks.begin => return Ok(0),
                _ => {}
            }
        }
        let range = keys::log(self.replica, index, index);
        let read = self.disk().last(range).await.and_then(|found| match found {
            Some((key, value)) => Ok(entry::read(&key, value)?.end_bytes),
            None => Err(self.hole(index)),
        });
        self.noting(read)
    }

    /// Length in bytes of the entries in the log.
    pub(crate) fn bytes(&self) -> u64 {
        let marks = self.marks.lock();
        let purged = marks.purged.map_or(0, |purged| purged.end_bytes);
        marks.end_bytes.saturating_sub(purged)
    }

    /// Entries of the log in `range`, without a gap, up to `max_bytes`; the first even if larger.
    pub(crate) async fn read(
        &self,
        range: Range<u64>,
        max_bytes: u64,
    ) -> Result<Vec<Entry>, DiskError> {
        self.noting(self.read_held(range, max_bytes).await)
    }

    async fn read_held(&self, range: Range<u64>, max_bytes: u64) -> Result<Vec<Entry>, DiskError> {
        let mut from = range.start;
        loop {
            let (start, end, appends) = {
                let marks = self.marks.lock();
                let start = from.max(marks.first());
                let end = range.end.min(marks.next());
                if start >= end {
                    return Ok(Vec::new());
                }
                match marks.tail.first() {
                    Some(first) if first <= start => {
                        return Ok(marks.tail.read(start, end, max_bytes));
                    }
                    Some(first) => (start, end.min(first), marks.appends),
                    None => (start, end, marks.appends),
                }
            };
            let entries = self.read_disk(start..end, max_bytes).await?;
            if entries
                .first()
                .is_some_and(|entry| entry.log_id.index == start)
            {
                return Ok(entries);
            }
            // Missing: purged, truncated or replaced since, or a hole.
            let marks = self.marks.lock();
            let held = marks.first() <= start && start < marks.next();
            if held && marks.appends == appends {
                return Err(self.hole(start));
            }
            from = start;
        }
    }

    /// Like [`ReplicaLog::read`], but to the end of the range, however long it is.
    pub(crate) async fn read_all(&self, range: Range<u64>) -> Result<Vec<Entry>, DiskError> {
        let mut all: Vec<Entry> = Vec::new();
        let mut next = range.start;
        loop {
            let entries = self
                .read(next..range.end, self.options().read_bytes as u64)
                .await?;
            let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
                return Ok(all);
            };
            if first.log_id.index != next {
                // Purged meanwhile, so the entries read before are gone too.
                all.clear();
            }
            next = last.log_id.index + 1;
            all.extend(entries);
            if next >= range.end {
                return Ok(all);
            }
        }
    }

    async fn read_disk(&self, range: Range<u64>, max_bytes: u64) -> Result<Vec<Entry>, DiskError> {
        let limit = ScanLimit {
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            max_pairs: usize::try_from(range.end - range.start).unwrap_or(usize::MAX),
        };
        let keys = keys::log(self.replica, range.start, range.end.saturating_sub(1));
        let pairs = self.disk().scan(keys, limit).await?;
        let mut entries: Vec<Entry> = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let entry = entry::read(&key, value)?.entry;
            if let Some(before) = entries.last()
                && before.log_id.index + 1 != entry.log_id.index
            {
                return Err(self.hole(before.log_id.index + 1));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn hole(&self, index: u64) -> DiskError {
        DiskError::Damaged(format!(
            "replica {}: entry {index} is missing from the log",
            self.replica
        ))
    }
}
