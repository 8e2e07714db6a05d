//! What everybody but openraft may know of a replica: its state, how far it has applied, and the
//! entries of its log. Read only, but for the one thing that is each replica's own to do: to compact
//! what it has applied.

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use ropewalk_proto::command::Command;
use ropewalk_proto::ids::{GroupId, ReplicaId};
use tokio::sync::watch;

use crate::checkpoint;
use crate::committer::Durability;
use crate::disk::{Batch, DiskError};
use crate::keys;
use crate::machine::Machine;
use crate::replica_log::ReplicaLog;
use crate::rewrite::Rewritten;
use crate::scrub::Scrub;
use crate::types::Entry;

/// One replica, to read. Clones are the same.
pub struct ReplicaView<M> {
    log: Arc<ReplicaLog>,
    machine: Arc<RwLock<M>>,
    applied: watch::Receiver<u64>,
}

impl<M> Clone for ReplicaView<M> {
    fn clone(&self) -> ReplicaView<M> {
        ReplicaView {
            log: Arc::clone(&self.log),
            machine: Arc::clone(&self.machine),
            applied: self.applied.clone(),
        }
    }
}

impl<M> fmt::Debug for ReplicaView<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaView")
            .field("log", &self.log)
            .field("applied", &*self.applied.borrow())
            .finish_non_exhaustive()
    }
}

impl<M: Machine> ReplicaView<M> {
    pub(crate) fn new(
        log: Arc<ReplicaLog>,
        machine: Arc<RwLock<M>>,
        applied: watch::Receiver<u64>,
    ) -> ReplicaView<M> {
        ReplicaView {
            log,
            machine,
            applied,
        }
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.log.group
    }

    /// The replica.
    pub fn replica(&self) -> ReplicaId {
        self.log.replica
    }

    /// The state machine, as of the last applied entry. Applying waits while this is held: read
    /// what is needed and let go, never across an await.
    pub fn machine(&self) -> RwLockReadGuard<'_, M> {
        self.machine.read()
    }

    /// The log index applied last; 0 before any. It is told after the state has changed and before
    /// the proposer hears.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// The entries in `range` that the log holds, without a gap, until they pass `max_bytes`; the
    /// first comes in any case. What is not there any more, or not yet, is left out at either end.
    /// Entries past [`ReplicaView::applied`] may still be replaced by others.
    pub async fn entries(
        &self,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, DiskError> {
        self.log.read(range, max_bytes as u64).await
    }

    /// Looks at the applied entries in `range`, about `max_bytes` of them, and writes those anew for
    /// which `replace` has another command, under the same index and term. A reader sees an entry as it
    /// was or as it is. Nothing happens to what was purged meanwhile. All of it is done in one go, so
    /// `replace` may break off before an entry: that one and what follows are for the next step.
    pub async fn rewrite(
        &self,
        range: Range<u64>,
        max_bytes: usize,
        replace: impl FnMut(&Entry) -> ControlFlow<(), Option<Command>> + Send,
    ) -> Result<Rewritten, DiskError> {
        // What is applied is committed: it is never truncated.
        let applied = *self.applied.borrow();
        let range = range.start..range.end.min(applied.saturating_add(1));
        self.log.rewrite(range, max_bytes, replace).await
    }

    /// Says that a pass of [`ReplicaView::rewrite`] over `range` is over, so that the disk gives the
    /// space of what was replaced back.
    pub fn reclaim(&self, range: Range<u64>) {
        self.log.reclaim(range);
    }

    /// What was noted last of this replica by [`ReplicaView::put_note`].
    pub async fn note(&self) -> Result<Option<Bytes>, DiskError> {
        self.log.note().await
    }

    /// Keeps a few bytes that are this replica's alone, in place of those kept before. They, and every
    /// entry rewritten before, are synced once this returns.
    pub async fn put_note(&self, note: Bytes) -> Result<(), DiskError> {
        self.log.put_note(note).await
    }

    /// What was found damaged of this replica on the disk, once something was. It must not run on:
    /// see [`crate::Store::quarantine`].
    pub fn damage(&self) -> watch::Receiver<Option<String>> {
        self.log.damage().subscribe()
    }

    /// Whether anything was found damaged.
    pub fn is_damaged(&self) -> bool {
        self.log.damage().borrow().is_some()
    }

    /// A pass over all that is stored of this replica, which tells it of what it finds damaged.
    pub fn scrub(&self) -> Scrub {
        let log = Arc::clone(&self.log);
        let range = keys::everything(log.replica);
        let disk = Arc::clone(log.disk());
        Scrub::new(disk, range, Arc::new(move |what| log.note_damage(what)))
    }

    /// The length in bytes of what the log holds.
    pub fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// The last index that was purged from the log.
    pub fn purged_index(&self) -> Option<u64> {
        let purged = self.log.marks().purged;
        purged.map(|purged| purged.log_id.index)
    }

    /// The index of the checkpoint the log may be purged up to, if there is one.
    pub async fn purge_boundary(&self) -> Result<Option<u64>, DiskError> {
        let purgeable_index = self.machine().purgeable_index();
        let boundary = checkpoint::boundary(&self.log, purgeable_index);
        // Waits for checkpoints that are on their way, not for a sync.
        let written = self
            .log
            .commit(Batch::default(), Durability::Unsynced)
            .await;
        written?;
        let newest = checkpoint::newest(&self.log, boundary).await?;
        Ok(newest.map(|(index, _)| index))
    }
}
