//! The node's reaction to its disk's state. With a full disk it refuses writes and continues to serve reads.
//! With a failed disk it serves reads until the disk works again, and then must be restarted.

use std::time::Duration;

use ropewalk_raft_store::Store;
use ropewalk_raft_store::committer::DiskStatus;

use crate::config::Limits;
use crate::env::Env;
use crate::peer::ReplicaRouter;

/// Interval between two checks of a failed disk, and so the minimum time that it counts as failed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Interval between two checks of a full disk.
const LOOK_WHILE_FULL: Duration = Duration::from_secs(1);
/// Divisor of the floor. Below that part of it, records from peers are refused too.
const LAST_PART: u64 = 2;

/// Follows the disk's status until the disk has failed and has space again. Returns the reason of the
/// failure.
///
/// Below the floor a node leads no writes. Below half of it, it takes no records from peers either: a
/// follower that did would fill the disk completely, fail, and lose its vote. The space between is for
/// records in flight when the floor was reached. Without it they could never be committed, nor anything after
/// them: no trim, and no new leader's first entry.
pub(crate) async fn watch(
    limits: &Limits,
    env: &Env,
    store: &Store,
    inbound: &ReplicaRouter,
) -> String {
    let mut status = store.disk_status();
    loop {
        let now = status.borrow_and_update().clone();
        match now {
            DiskStatus::Healthy => {
                inbound.refuse_appends(false);
                tracing::debug!("disk accepts writes");
            }
            DiskStatus::Full => tracing::warn!(
                floor_bytes = limits.free_space_floor_bytes,
                "disk is nearly full: writes are refused until space is free again"
            ),
            DiskStatus::Failed(reason) => {
                inbound.refuse_appends(true);
                tracing::error!(%reason, "disk failed: writes are refused");
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

/// While the disk is full, refuses records from peers once little space is left.
async fn keep_the_last<T>(limits: &Limits, env: &Env, inbound: &ReplicaRouter) -> T {
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
            Ok(free) => tracing::warn!(free_bytes = free, "disk still lacks free space; waiting"),
            Err(error) => tracing::warn!(%error, "disk does not respond"),
        }
    }
}
