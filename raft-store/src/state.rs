//! openraft's state machine around a pure [`Machine`]: applies, answers, and mirrors on the disk.
//!
//! **Effects never become durable before the entries they come from.** At start openraft purges a
//! log that ends below the last applied entry; a state ahead of its log would thus delete records.
//! A leader does apply entries before its own sync, as soon as a quorum without it has synced
//! them, so nothing in Raft keeps the order. This does:
//!
//! - An entry can be read, and so be applied, only after its append stands in the committer's
//!   queue ([`ReplicaLog::append`] makes it readable last). The effects of applying it are put into
//!   the same queue afterwards, so they stand behind it.
//! - The committer writes its queue in order into one write-ahead log, and a power loss leaves a
//!   prefix of that.
//! - RocksDB may flush a memtable, effects in it, before the write-ahead log is synced. Log and
//!   effects share one column family, so the memtable that holds an effect, or one flushed before
//!   it, holds the entry.
//!
//! The same order makes a checkpoint durable before the purge that relies on it, and each apply
//! call writes its effects and its position in one batch, so that the state on the disk is always
//! exactly that of some log index. What a power loss takes of the state is applied again.
//!
//! A machine that can't apply an entry stops its replica. It never skips.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::RwLock;
use ropewalk_proto::command::Reply;
use ropewalk_proto::mistake::{Mistake, made};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::checkpoint::{self, SnapshotBuilder, Thrift};
use crate::committer::Durability;
use crate::disk::{Batch, Change, DiskError};
use crate::entry::entry_bytes;
use crate::keys;
use crate::log::io_error;
use crate::machine::{Machine, MachineError};
use crate::replica_log::ReplicaLog;
use crate::small::{self, Checkpoint, Position, Purged};
use crate::types::{Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// Effects are written when they pass this, even if more entries are waiting to be applied.
const APPLY_BATCH_BYTES: usize = 1 << 20;

/// As is done when this many entries have been applied: their proposers wait for it.
const APPLY_BATCH_ENTRIES: usize = 4_096;

/// One replica's state machine, for openraft.
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

/// What applying has come to and is not written yet.
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
            before.is_none_or(|before| index == before + 1),
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
            let change = small::put_checkpoint(self.log.replica, index, &checkpoint);
            pending.checkpoints.push(change);
        }
        Ok(applied.reply)
    }

    /// Writes what has been applied, tells who watches, and answers the proposers.
    async fn write(&mut self, pending: Pending) {
        let Some(applied) = self.position.log_id else {
            return;
        };
        let replica = self.log.replica;
        let effects = pending.effects.into_iter();
        let mut changes: Vec<Change> = effects
            .map(|(key, value)| small::put_effect(replica, key, value))
            .collect();
        changes.extend(pending.checkpoints);
        // A disk that fails is found out by the next append: these effects are in the log.
        let done = |_: Result<(), DiskError>| {};
        let position = small::put_applied(replica, &self.position);
        if made(Mistake::PositionBeforeState) {
            let changes = vec![position];
            let _ = self.log.disk().commit(Batch { changes }, false).await;
        } else {
            changes.push(position);
        }
        let batch = Batch { changes };
        if made(Mistake::StateBeforeLog) {
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

    /// The batch that makes this replica's disk that of a snapshot.
    fn replacement(
        &self,
        purged: Purged,
        checkpoint: &Checkpoint,
        effects: Vec<crate::Effect>,
    ) -> Batch {
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
        changes.extend(effects.map(|effect| small::put_effect(replica, effect.key, effect.value)));
        changes.extend([
            small::put_checkpoint(replica, index, checkpoint),
            small::put_applied(replica, &checkpoint.position),
            small::put_purged(replica, purged),
        ]);
        Batch { changes }
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
            // From the first entry in hand: it may have to be read from the disk.
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

    /// `None` as long as there is no checkpoint the log could be purged up to.
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
            return Err(io_error("a snapshot of nothing can't be installed"));
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
        // Waits for checkpoints that are on their way, not for a sync.
        let written = self
            .log
            .commit(Batch::default(), Durability::Unsynced)
            .await;
        written.map_err(io_error)?;
        let newest = checkpoint::newest(&self.log, self.boundary()).await;
        let newest = newest.map_err(io_error)?;
        Ok(newest.map(|(_, checkpoint)| checkpoint::snapshot(checkpoint)))
    }
}
