//! openraft's state machine around a pure [`Machine`]: applies entries, answers proposers, and mirrors the
//! state on the disk.
//!
//! **Effects never become durable before the entries they come from.** At start, openraft purges a log that
//! ends below the last applied entry. So a state ahead of its log would delete records. A leader may apply
//! an entry before its own sync, as soon as a quorum without it has synced the entry. So Raft does not keep
//! this order. These rules do:
//!
//! - An entry is readable, and so can be applied, only after its append is in the committer's queue
//!   ([`ReplicaLog::append`] makes it readable last). The effects of applying it enter the same queue
//!   afterwards, so they follow it.
//! - The committer writes its queue in order into one write-ahead log, and a power loss leaves a prefix of
//!   that log.
//! - RocksDB may flush a memtable with effects before the write-ahead log is synced. Log and effects share
//!   one column family. So the entry is in the same memtable as its effects, or in one flushed earlier.
//!
//! The same order makes a checkpoint durable before the purge that relies on it. Effects and the position
//! after them are written in one batch, so the state on the disk is always exactly that of some log index.
//! The part of the state that a power loss takes is applied again.
//!
//! A machine that can't apply an entry stops its replica. It never skips an entry.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::RwLock;
use ropewalk_machines::machine::{Machine, MachineError, StateWrite};
use ropewalk_proto::command::Reply;
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::checkpoint::{self, SnapshotBuilder, Thrift};
use crate::committer::Durability;
use crate::disk::{Change, ChangeBatch, DiskError};
use crate::entry::entry_bytes;
use crate::keys;
use crate::log::ReplicaLog;
use crate::openraft_log::io_error;
use crate::types::{Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::values::{self, Checkpoint, Position, Purged};

/// Effects are written once they exceed this size, even if more entries wait to be applied.
const APPLY_BATCH_BYTES: usize = 1 << 20;

/// Effects are also written once this many entries are applied, since the proposers wait for it.
const APPLY_BATCH_ENTRIES: usize = 4_096;

/// The state machine of one replica, for openraft.
pub struct StateMachine<M> {
    log: Arc<ReplicaLog>,
    machine: Arc<RwLock<M>>,
    position: Position,
    thrift: Thrift,
    applied: watch::Sender<u64>,
}

impl<M> fmt::Debug for StateMachine<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMachine")
            .field("log", &self.log)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// Results of applying that are not written yet.
#[derive(Default)]
struct Pending {
    effects: BTreeMap<Bytes, Option<Bytes>>,
    checkpoints: Vec<Change>,
    replies: Vec<(Option<ApplyResponder<TypeConfig>>, Reply)>,
    bytes: usize,
}

impl Pending {
    fn is_full(&self) -> bool {
        self.bytes >= APPLY_BATCH_BYTES || self.replies.len() >= APPLY_BATCH_ENTRIES
    }
}

impl<M: Machine> StateMachine<M> {
    pub(crate) fn new(
        log: Arc<ReplicaLog>,
        machine: Arc<RwLock<M>>,
        position: Position,
        applied: watch::Sender<u64>,
    ) -> StateMachine<M> {
        let thrift = Thrift::new(log.options().checkpoint_factor);
        StateMachine {
            log,
            machine,
            position,
            thrift,
            applied,
        }
    }

    fn boundary(&self) -> u64 {
        let purgeable_index = self.machine.read().purgeable_index();
        checkpoint::boundary(&self.log, purgeable_index)
    }

    /// Applies one entry in memory.
    fn apply_one(&mut self, entry: Entry, pending: &mut Pending) -> Result<Reply, MachineError> {
        let bytes = entry_bytes(&entry);
        let LogId { index, .. } = entry.log_id;
        let before = self.position.log_id.map(|before| before.index);
        assert!(
            before.is_none_or(|before| before < index),
            "entry {index} is applied after entry {before:?}"
        );
        let term = entry.log_id.committed_leader_id().term;
        let command = match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(command) => Some(command),
            EntryPayload::Membership(membership) => {
                self.position.membership = StoredMembership::new(Some(entry.log_id), membership);
                None
            }
        };
        self.thrift.applied(bytes);
        let (applied, state) = {
            let mut machine = self.machine.write();
            let applied = machine.apply(index, term, bytes, command.as_ref())?;
            let purgeable = machine.purgeable_index();
            assert!(
                purgeable <= index,
                "entry {purgeable} may be purged before it is applied"
            );
            let asked = applied.checkpoint && self.thrift.may_be_due();
            let state = asked.then(|| machine.checkpoint());
            (applied, state)
        };
        let state = state.filter(|state| self.thrift.affords(state.len() as u64));
        self.position.log_id = Some(entry.log_id);
        for effect in applied.effects {
            pending.bytes += effect.key.len() + effect.value.as_ref().map_or(0, Bytes::len);
            pending.effects.insert(effect.key, effect.value);
        }
        if let Some(state) = state {
            pending.bytes += state.len();
            let checkpoint = Checkpoint {
                position: self.position.clone(),
                state,
            };
            let change = values::put_checkpoint(self.log.replica, index, &checkpoint);
            pending.checkpoints.push(change);
        }
        Ok(applied.reply)
    }

    /// Writes the applied effects, notifies watchers, and answers the proposers.
    async fn write(&mut self, pending: Pending) {
        let Some(applied) = self.position.log_id else {
            return;
        };
        let replica = self.log.replica;
        let effects = pending.effects.into_iter();
        let mut changes: Vec<Change> = effects
            .map(|(key, value)| values::put_effect(replica, key, value))
            .collect();
        changes.extend(pending.checkpoints);
        // The next append detects a disk that failed; these effects are also in the log.
        let done = |_: Result<(), DiskError>| {};
        let position = values::put_applied(replica, &self.position);
        if is_planted(PlantedBug::PositionBeforeState) {
            let changes = vec![position];
            let _ = self.log.disk().commit(ChangeBatch { changes }, false).await;
        } else {
            changes.push(position);
        }
        let batch = ChangeBatch { changes };
        if is_planted(PlantedBug::StateBeforeLog) {
            let _ = self.log.disk().commit(batch, false).await;
        } else {
            self.log.submit(batch, Durability::Unsynced, done).await;
        }
        self.applied.send_replace(applied.index);
        for (responder, reply) in pending.replies {
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
    }

    /// Batch that replaces the data of this replica with a snapshot.
    fn replacement(
        &self,
        purged: Purged,
        checkpoint: &Checkpoint,
        effects: Vec<StateWrite>,
    ) -> ChangeBatch {
        let replica = self.log.replica;
        let index = purged.log_id.index;
        let first = self.log.marks().first();
        let mut changes: Vec<Change> = [keys::effects(replica), keys::all_checkpoints(replica)]
            .map(|range| Change::DeleteRange { range })
            .into();
        if first <= index {
            let range = keys::log(replica, first, index);
            changes.push(Change::DeleteRange { range });
        }
        let effects = effects.into_iter();
        changes.extend(effects.map(|effect| values::put_effect(replica, effect.key, effect.value)));
        changes.extend([
            values::put_checkpoint(replica, index, checkpoint),
            values::put_applied(replica, &checkpoint.position),
            values::put_purged(replica, purged),
        ]);
        ChangeBatch { changes }
    }
}

impl<M: Machine> RaftStateMachine<TypeConfig> for StateMachine<M> {
    type SnapshotData = Bytes;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let Position { log_id, membership } = &self.position;
        Ok((*log_id, membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut pending = Pending::default();
        let mut began = None;
        while let Some((entry, responder)) = entries.try_next().await? {
            // Measured from the first entry in hand, since reading it may need the disk.
            began.get_or_insert_with(Instant::now);
            let reply = self.apply_one(entry, &mut pending).map_err(io_error)?;
            pending.replies.push((responder, reply));
            if pending.is_full() {
                self.write(std::mem::take(&mut pending)).await;
                self.log.applied_since(began.take());
            }
        }
        if !pending.replies.is_empty() {
            self.write(pending).await;
            self.log.applied_since(began);
        }
        Ok(())
    }

    /// Returns `None` while there is no checkpoint up to which the log could be purged.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        let builder = self.get_snapshot_builder().await;
        if force {
            return Some(builder);
        }
        let current = self.get_current_snapshot().await;
        current
            .is_ok_and(|snapshot| snapshot.is_some())
            .then_some(builder)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let nothing_applied = self.position.log_id.is_none();
        let empty = nothing_applied.then(|| self.machine.read().checkpoint());
        SnapshotBuilder::new(Arc::clone(&self.log), self.boundary(), empty)
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Bytes,
    ) -> Result<(), io::Error> {
        let Some(log_id) = meta.last_log_id else {
            return Err(io_error("snapshot without a log id cannot be installed"));
        };
        let purged = self.log.purged_at(log_id).await.map_err(io_error)?;
        let checkpoint = Checkpoint {
            position: Position {
                log_id: Some(log_id),
                membership: meta.last_membership.clone(),
            },
            state: snapshot,
        };
        let restored = self.machine.write().restore(checkpoint.state.clone());
        let effects = restored.map_err(io_error)?;
        let _beginning = self.log.hold_beginning().await;
        let batch = self.replacement(purged, &checkpoint, effects);
        self.log.marks().purge(purged);
        let installed = self.log.commit(batch, Durability::Synced).await;
        installed.map_err(io_error)?;
        self.position = checkpoint.position;
        self.applied.send_replace(log_id.index);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        // Waits for checkpoints in the queue, not for a sync.
        let written = self
            .log
            .commit(ChangeBatch::default(), Durability::Unsynced)
            .await;
        written.map_err(io_error)?;
        let newest = checkpoint::newest(&self.log, self.boundary()).await;
        let newest = newest.map_err(io_error)?;
        Ok(newest.map(|(_, checkpoint)| checkpoint::snapshot(checkpoint)))
    }
}
