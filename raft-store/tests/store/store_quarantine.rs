//! The view of a damaged replica reports it, and once marked the replica never opens again.

use std::sync::Arc;

use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use ropewalk_raft_store::disk::MemoryDisk;
use ropewalk_raft_store::types::Vote;
use ropewalk_raft_store::{Store, StoreError, StoreOptions};

use crate::support::{GROUP, REPLICA, Sum, TERM, apply, entries};

/// All reads come from the disk: no part of the log stays in memory.
async fn store(disk: &Arc<MemoryDisk>) -> Store {
    let options = StoreOptions {
        tail_bytes: 0,
        ..StoreOptions::default()
    };
    let disk: Arc<MemoryDisk> = Arc::clone(disk);
    Store::open(disk, options).await.expect("a store")
}

/// Selects the stored log entry at this index, by its key in the key space.
fn is_entry(index: u64) -> impl FnMut(&[u8], &[u8]) -> bool {
    let parts: [&[u8]; 4] = [&[3], &REPLICA.0.to_be_bytes(), &[7], &index.to_be_bytes()];
    let wanted = parts.concat();
    move |key, _| key == wanted
}

#[tokio::test]
async fn damage_met_by_any_reader_is_told_to_all_and_the_mark_outlives_the_store() {
    let disk = Arc::new(MemoryDisk::new());
    let first = store(&disk).await;
    let opened = first.open_replica(GROUP, REPLICA, Sum::default()).await;
    let mut replica = opened.expect("a replica");
    for index in 0..10 {
        let entry = entries(TERM, index..index + 1);
        let appended = replica.log.blocking_append(entry).await;
        appended.expect("an append");
    }
    apply(&mut replica.state, entries(TERM, 0..10)).await;
    let damage = replica.view.damage();
    replica
        .view
        .entries(0..10, 1 << 20)
        .await
        .expect("all is whole");
    assert!(damage.borrow().is_none() && !replica.view.is_damaged());

    assert_eq!(disk.damage(is_entry(4)), 1);
    let held = replica.log.try_get_log_entries(0..10).await;
    assert!(held.is_err(), "a damaged entry was read");
    let why = damage.borrow().clone().expect("damage");
    assert!(why.contains("its checksum does not match"), "{why}");
    assert!(replica.view.is_damaged());

    first.quarantine(REPLICA, &why).await.expect("a mark");
    let vote = Vote::new(TERM + 1, REPLICA);
    let voted = replica.log.save_vote(&vote).await;
    voted.expect_err("a replica in quarantine votes no more");
    first.close().await;

    let second = store(&disk).await;
    let opened = second.open_replica(GROUP, REPLICA, Sum::default()).await;
    match opened {
        Err(StoreError::Quarantined { replica, why: said }) => {
            assert_eq!((replica, said), (REPLICA, why));
        }
        other => panic!("a replica in quarantine opened: {other:?}"),
    }
    assert_eq!(second.replicas(), [(GROUP, REPLICA)], "its data stays");
    second.destroy_replica(REPLICA).await.expect("destroyed");
    let opened = second.open_replica(GROUP, REPLICA, Sum::default()).await;
    opened.expect("nothing is left of it, not even the mark");
}
