//! Purging a replica's log up to the newest checkpoint below which nothing will be read.
//!
//! openraft purges only what a snapshot covers: so the checkpoint first becomes the snapshot, and
//! what is in the snapshot is then purged. Never the other way, and never past the checkpoint.

use std::time::Duration;

use openraft::LogIdOptionExt;
use openraft::errors::Fatal;
use openraft_rt::WatchReceiver;

use crate::disk::DiskError;
use crate::machine::Machine;
use crate::types::{Raft, TypeConfig};
use crate::view::ReplicaView;

/// Why a log was not purged. The next attempt begins anew.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// The checkpoints could not be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The group does not run any more.
    #[error("the group has stopped: {0}")]
    Stopped(#[from] Fatal<TypeConfig>),
    /// It did not happen in time; it may still.
    #[error("purging up to {index} did not happen in time: {reason}")]
    Late {
        /// The boundary.
        index: u64,
        /// What was waited for.
        reason: String,
    },
}

/// Purges the log of a replica up to the newest checkpoint it may be purged up to, and says which
/// index that is; `None` if there is nothing to purge. `limit` bounds each of the two steps: a
/// leader that is replicating what is to go puts the purge off.
pub async fn purge_to_boundary<M: Machine>(
    raft: &Raft<M>,
    view: &ReplicaView<M>,
    limit: Duration,
) -> Result<Option<u64>, PurgeError> {
    let Some(index) = view.purge_boundary().await? else {
        return Ok(None);
    };
    if view.purged_index().is_some_and(|purged| purged >= index) {
        return Ok(None);
    }
    let late = |error: openraft::metrics::WaitError| PurgeError::Late {
        index,
        reason: error.to_string(),
    };
    let covered = |snapshot: Option<u64>| snapshot.is_some_and(|snapshot| snapshot >= index);
    let metrics = raft.metrics();
    let snapshot = metrics.borrow_watched().snapshot.index();
    if !covered(snapshot) {
        raft.trigger().snapshot().await?;
        raft.wait(Some(limit))
            .metrics(
                |metrics| covered(metrics.snapshot.index()),
                "the checkpoint is the snapshot",
            )
            .await
            .map_err(late)?;
    }
    raft.trigger().purge_log(index).await?;
    raft.wait(Some(limit))
        .metrics(
            |metrics| covered(metrics.purged.index()),
            "the log is purged",
        )
        .await
        .map_err(late)?;
    Ok(Some(index))
}
