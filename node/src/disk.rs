//! What a node does about its disk: full, it takes no more writes and goes on reading; failed, it
//! goes on reading until the disk looks well again, and then asks to be run anew.

use std::time::Duration;

use ropewalk_raft_store::Store;
use ropewalk_raft_store::committer::DiskStatus;

use crate::config::Limits;
use crate::env::Env;
use crate::peer::Inbound;

/// How often a failed disk is looked at, and so how long it stays failed at least.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Follows the disk's status until it has failed and looks well again; returns why it failed.
///
/// A full disk refuses appends from peers too: a follower that took them would fill the last of it
/// and then fail, votes and all.
pub(crate) async fn watch(limits: &Limits, env: &Env, store: &Store, inbound: &Inbound) -> String {
    let mut status = store.disk_status();
    loop {
        let now = status.borrow_and_update().clone();
        inbound.refuse_appends(now != DiskStatus::Healthy);
        match now {
            DiskStatus::Healthy => tracing::debug!("the disk takes writes"),
            DiskStatus::Full => tracing::warn!(
                floor_bytes = limits.free_space_floor_bytes,
                "the disk is nearly full: writes are refused until space returns"
            ),
            DiskStatus::Failed(reason) => {
                tracing::error!(%reason, "the disk failed: writes are refused");
                wait_for_space(limits, env).await;
                return reason;
            }
        }
        if status.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn wait_for_space(limits: &Limits, env: &Env) {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        match env.disk.free_bytes() {
            Ok(free) if free > limits.free_space_floor_bytes => return,
            Ok(free) => tracing::warn!(free_bytes = free, "still waiting for space on the disk"),
            Err(error) => tracing::warn!(%error, "the disk does not answer"),
        }
    }
}
