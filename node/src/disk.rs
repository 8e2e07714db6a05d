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
/// How often a full disk is looked at.
const LOOK_WHILE_FULL: Duration = Duration::from_secs(1);
/// The part of the floor below which records from peers are refused too.
const LAST_PART: u64 = 2;

/// Follows the disk's status until it has failed and looks well again; returns why it failed.
///
/// Below the floor a node leads no more writes; below half of it, it takes no records from peers
/// either: a follower that did would fill the last of the disk and then fail, votes and all. What
/// lies between is for what was on its way when the floor was reached, and could otherwise never be
/// committed, nor anything behind it: no trim, and no new leader's first entry.
pub(crate) async fn watch(limits: &Limits, env: &Env, store: &Store, inbound: &Inbound) -> String {
    let mut status = store.disk_status();
    loop {
        let now = status.borrow_and_update().clone();
        match now {
            DiskStatus::Healthy => {
                inbound.refuse_appends(false);
                tracing::debug!("the disk takes writes");
            }
            DiskStatus::Full => tracing::warn!(
                floor_bytes = limits.free_space_floor_bytes,
                "the disk is nearly full: writes are refused until space returns"
            ),
            DiskStatus::Failed(reason) => {
                inbound.refuse_appends(true);
                tracing::error!(%reason, "the disk failed: writes are refused");
                wait_for_space(limits, env).await;
                return reason;
            }
        }
        let changed = tokio::select! {
            changed = status.changed() => changed,
            never = keep_the_last(limits, env, inbound), if now == DiskStatus::Full => never,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// While the disk is full: refuses records from peers as soon as little is left.
async fn keep_the_last<T>(limits: &Limits, env: &Env, inbound: &Inbound) -> T {
    loop {
        let free = env.disk.free_bytes();
        let little = free.is_ok_and(|free| free < limits.free_space_floor_bytes / LAST_PART);
        inbound.refuse_appends(little);
        tokio::time::sleep(LOOK_WHILE_FULL).await;
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
