//! Purges a replica's log up to the newest checkpoint below which nothing is read again.
//!
//! openraft purges only what a snapshot covers. So the checkpoint first becomes the snapshot, and then the
//! log up to it is purged. The order never changes, and the purge never passes the checkpoint.

use std::time::Duration;

use openraft::LogIdOptionExt;
use openraft::errors::Fatal;
use openraft_rt::WatchReceiver;
use ropewalk_machines::machine::Machine;

use crate::disk::DiskError;
use crate::reader::ReplicaReader;
use crate::types::{Raft, TypeConfig};

/// Reason that a log was not purged. The next attempt starts over.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// The checkpoints could not be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The group no longer runs.
    #[error("Raft group has stopped: {0}")]
    Stopped(#[from] Fatal<TypeConfig>),
    /// The purge did not happen in time. It may still happen.
    #[error("log was not purged up to {index} in time: {reason}")]
    Late {
        /// Index up to which the log should be purged.
        index: u64,
        /// Description of the step that took too long.
        reason: String,
    },
}

/// Purges the log of a replica up to the newest checkpoint that allows it, and returns the index of that
/// checkpoint; `None` if there is nothing to purge. `limit` bounds each of the two steps: a leader that
/// still replicates the entries delays the purge.
pub async fn purge_to_boundary<M: Machine>(
    raft: &Raft<M>,
    view: &ReplicaReader<M>,
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
