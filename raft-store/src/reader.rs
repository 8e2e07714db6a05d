//! Read access to a replica for everything but openraft: its state, its applied position and its log
//! entries. The only writes here concern this replica alone: they compact what it has applied.

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use ropewalk_machines::machine::Machine;
use ropewalk_proto::command::Command;
use ropewalk_proto::ids::{GroupId, ReplicaId};
use tokio::sync::watch;

use crate::checkpoint;
use crate::committer::Durability;
use crate::disk::{ChangeBatch, DiskError};
use crate::keys;
use crate::log::ReplicaLog;
use crate::rewrite::Rewritten;
use crate::scrub::Scrub;
use crate::types::Entry;

/// Read handle of one replica. Clones read the same replica.
pub struct ReplicaReader<M> {
    log: Arc<ReplicaLog>,
    machine: Arc<RwLock<M>>,
    applied: watch::Receiver<u64>,
}

impl<M> Clone for ReplicaReader<M> {
    fn clone(&self) -> ReplicaReader<M> {
        ReplicaReader {
            log: Arc::clone(&self.log),
            machine: Arc::clone(&self.machine),
            applied: self.applied.clone(),
        }
    }
}

impl<M> fmt::Debug for ReplicaReader<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaView")
            .field("log", &self.log)
            .field("applied", &*self.applied.borrow())
            .finish_non_exhaustive()
    }
}

impl<M: Machine> ReplicaReader<M> {
    pub(crate) fn new(
        log: Arc<ReplicaLog>,
        machine: Arc<RwLock<M>>,
        applied: watch::Receiver<u64>,
    ) -> ReplicaReader<M> {
        ReplicaReader {
            log,
            machine,
            applied,
        }
    }

    /// Its group.
    pub fn group(&self) -> GroupId {
        self.log.group
    }

    /// Its id.
    pub fn replica(&self) -> ReplicaId {
        self.log.replica
    }

    /// The state machine as of the last applied entry. Applying waits while this guard is held. Read and
    /// drop it; never hold it across an await.
    pub fn machine(&self) -> RwLockReadGuard<'_, M> {
        self.machine.read()
    }

    /// Last applied log index; 0 before the first. It changes after the state does, and before the proposer
    /// is answered.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// Entries of the log in `range`, without a gap, up to `max_bytes`; the first even if larger. Entries
    /// that are purged, or not yet appended, are left out at either end. Entries past
    /// [`ReplicaReader::applied`] may still be replaced.
    pub async fn entries(
        &self,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, DiskError> {
        self.log.read(range, max_bytes as u64).await
    }

    /// Examines about `max_bytes` of the applied entries in `range`, and rewrites those for which `replace`
    /// returns another command. Index and term stay the same. A reader sees an entry either as it was or as
    /// it is. Entries purged meanwhile are left alone. The step runs in one go, so `replace` may break off
    /// before an entry: that entry and the following ones are left for the next step.
    pub async fn rewrite(
        &self,
        range: Range<u64>,
        max_bytes: usize,
        replace: impl FnMut(&Entry) -> ControlFlow<(), Option<Command>> + Send,
    ) -> Result<Rewritten, DiskError> {
        // An applied entry is committed, so it is never truncated.
        let applied = *self.applied.borrow();
        let range = range.start..range.end.min(applied.saturating_add(1));
        self.log.rewrite(range, max_bytes, replace).await
    }

    /// Reports that a pass of [`ReplicaReader::rewrite`] over `range` has ended, so that the disk reclaims
    /// the space of the replaced entries.
    pub fn reclaim(&self, range: Range<u64>) {
        self.log.reclaim(range);
    }

    /// The last note stored by [`ReplicaReader::put_note`].
    pub async fn note(&self) -> Result<Option<Bytes>, DiskError> {
        self.log.note().await
    }

    /// Stores a few bytes of this replica alone, in place of the earlier ones. Once this returns, they and
    /// every entry rewritten before are synced.
    pub async fn put_note(&self, note: Bytes) -> Result<(), DiskError> {
        self.log.put_note(note).await
    }

    /// First damage found in this replica's data on the disk. The replica must not continue to run: see
    /// [`crate::Store::quarantine`].
    pub fn damage(&self) -> watch::Receiver<Option<String>> {
        self.log.damage().subscribe()
    }

    /// Returns true if any damage was found.
    pub fn is_damaged(&self) -> bool {
        self.log.damage().borrow().is_some()
    }

    /// A scrub of everything stored for this replica, which records the damage it finds.
    pub fn scrub(&self) -> Scrub {
        let log = Arc::clone(&self.log);
        let range = keys::everything(log.replica);
        let disk = Arc::clone(log.disk());
        Scrub::new(disk, range, Arc::new(move |what| log.note_damage(what)))
    }

    /// Length in bytes of the entries in the log.
    pub fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// The last purged index.
    pub fn purged_index(&self) -> Option<u64> {
        let purged = self.log.marks().purged;
        purged.map(|purged| purged.log_id.index)
    }

    /// Index of the checkpoint up to which the log may be purged, if there is one.
    pub async fn purge_boundary(&self) -> Result<Option<u64>, DiskError> {
        let purgeable_index = self.machine().purgeable_index();
        let boundary = checkpoint::boundary(&self.log, purgeable_index);
        // Waits for checkpoints in the queue, not for a sync.
        let written = self
            .log
            .commit(ChangeBatch::default(), Durability::Unsynced)
            .await;
        written?;
        let newest = checkpoint::newest(&self.log, boundary).await?;
        Ok(newest.map(|(index, _)| index))
    }
}
