//! Checkpoints: a state machine's whole state, and the membership, exactly as of a log index.
//!
//! openraft's snapshot is always one of these, and never the newest state: the newest checkpoint at
//! or below what the machine says nothing will be read of again. The log behind it is still here,
//! and a new replica streams it; a snapshot of the newest state would leave it a silent hole
//! instead of the records it is to serve.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::RaftSnapshotBuilder;
use ropewalk_proto::mistake::{Mistake, made};

use crate::committer::Durability;
use crate::disk::{Batch, Change, DiskError};
use crate::keys::{self, Key, Part};
use crate::log::io_error;
use crate::replica_log::ReplicaLog;
use crate::small::{self, Checkpoint, Position};
use crate::types::{Snapshot, SnapshotMeta, TypeConfig};

/// At or below which index the snapshot is looked for. The state of a replica that began with a
/// snapshot may not know yet that nothing below it will be read; its log does.
pub(crate) fn boundary(log: &ReplicaLog, purgeable_index: u64) -> u64 {
    if made(Mistake::SnapshotOfTheNewest) {
        return u64::MAX;
    }
    let purged = log.marks().purged;
    purged
        .map_or(0, |purged| purged.log_id.index)
        .max(purgeable_index)
}

/// The newest checkpoint at or below `index`, and its own index.
pub(crate) async fn newest(
    log: &ReplicaLog,
    index: u64,
) -> Result<Option<(u64, Checkpoint)>, DiskError> {
    let range = keys::checkpoints(log.replica, 0, index);
    let found = log.disk().last(range).await;
    log.noting(found.and_then(|found| found.map(read).transpose()))
}

fn read((key, value): (Bytes, Bytes)) -> Result<(u64, Checkpoint), DiskError> {
    let Some(Key::Of(_, Part::Checkpoint(at))) = Key::decode(&key) else {
        return Err(crate::sealed::damaged(&key, "not a checkpoint's key"));
    };
    Ok((at, small::read_checkpoint(&key, value)?))
}

/// A checkpoint as openraft's snapshot.
pub(crate) fn snapshot(checkpoint: Checkpoint) -> Snapshot {
    Snapshot {
        meta: SnapshotMeta {
            last_log_id: checkpoint.position.log_id,
            last_membership: checkpoint.position.membership,
        },
        snapshot: checkpoint.state,
    }
}

/// Makes a checkpoint the group's snapshot.
#[derive(Debug)]
pub struct SnapshotBuilder {
    log: Arc<ReplicaLog>,
    boundary: u64,
    /// The state as long as nothing was applied: it needs no checkpoint.
    empty: Option<Bytes>,
}

impl SnapshotBuilder {
    pub(crate) fn new(
        log: Arc<ReplicaLog>,
        boundary: u64,
        empty: Option<Bytes>,
    ) -> SnapshotBuilder {
        SnapshotBuilder {
            log,
            boundary,
            empty,
        }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Bytes;

    /// Once this returns, the snapshot is synced: the log up to it may be purged.
    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        // The sync also waits for checkpoints that are still on their way to the disk.
        let written = self.log.commit(Batch::default(), Durability::Synced).await;
        written.map_err(io_error)?;
        let newest = newest(&self.log, self.boundary).await;
        let Some((index, checkpoint)) = newest.map_err(io_error)? else {
            if let Some(state) = self.empty.take() {
                let position = Position::default();
                return Ok(snapshot(Checkpoint { position, state }));
            }
            return Err(io_error(format!(
                "replica {} has no checkpoint at or below index {}",
                self.log.replica, self.boundary
            )));
        };
        if let Some(older) = index.checked_sub(1) {
            let range = keys::checkpoints(self.log.replica, 0, older);
            let batch = Batch {
                changes: vec![Change::DeleteRange { range }],
            };
            let deleted = self.log.commit(batch, Durability::Unsynced).await;
            deleted.map_err(io_error)?;
        }
        Ok(snapshot(checkpoint))
    }
}
