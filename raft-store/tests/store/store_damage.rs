//! A replica whose disk is not as it was written is refused, with an error that says damage: openraft would
//! continue from it and lose records silently.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::{
    RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine,
};
use ropewalk_raft_store::disk::{Change, ChangeBatch, Disk, DiskError, MemoryDisk, ScanLimit};
use ropewalk_raft_store::types::Vote;
use ropewalk_raft_store::{Replica, StoreError};

use crate::support::{REPLICA, Recorder, Sum, TERM, apply, entries, log_id, open, try_open};

const CHECKPOINTS: u8 = 6;
const LOG: u8 = 7;

/// The key of an entry or a checkpoint in the key space.
fn key(part: u8, index: u64) -> Bytes {
    [
        &[3],
        &REPLICA.0.to_be_bytes()[..],
        &[part],
        &index.to_be_bytes(),
    ]
    .concat()
    .into()
}

async fn damage(disk: &MemoryDisk, change: Change) {
    let batch = ChangeBatch {
        changes: vec![change],
    };
    disk.commit(batch, true).await.expect("a commit");
}

fn without(range: Range<Bytes>) -> Change {
    Change::DeleteRange { range }
}

/// A replica with a vote, purged up to 12, applied up to 19, and a log up to 22.
async fn healthy() -> Arc<MemoryDisk> {
    let disk = Recorder::new();
    let mut replica = open(disk.clone()).await;
    let vote = Vote::new_committed(TERM, REPLICA);
    replica.log.save_vote(&vote).await.expect("a vote");
    let appended = replica.log.blocking_append(entries(TERM, 0..23)).await;
    appended.expect("an append");
    let committed = Some(log_id(TERM, 19));
    replica.log.save_committed(committed).await.expect("saved");
    apply(&mut replica.state, entries(TERM, 0..20)).await;
    let mut builder = replica.state.get_snapshot_builder().await;
    let snapshot = builder.build_snapshot().await.expect("a snapshot");
    assert_eq!(snapshot.meta.last_log_id, Some(log_id(TERM, 12)));
    replica.log.purge(log_id(TERM, 12)).await.expect("a purge");
    disk.now()
}

async fn refused(disk: Arc<MemoryDisk>, says: &str) {
    match try_open(disk).await {
        Err(StoreError::Disk(DiskError::Damaged(reason))) => {
            assert!(reason.contains(says), "{reason}");
        }
        other => panic!("expected damage, got {other:?}"),
    }
}

#[tokio::test]
async fn a_healthy_replica_opens() {
    let Replica { mut log, view, .. } = open(healthy().await).await;
    assert_eq!(*view.machine(), Sum::after(19));
    let held = log.try_get_log_entries(0..99).await.expect("the log");
    assert_eq!(held, entries(TERM, 13..23));
}

#[tokio::test]
async fn a_log_that_ends_below_what_was_applied_is_refused() {
    let disk = healthy().await;
    damage(&disk, without(key(LOG, 19)..key(LOG, 99))).await;
    refused(disk, "ends at 18, below the applied 19").await;
    let disk = healthy().await;
    damage(&disk, without(key(LOG, 0)..key(LOG, 99))).await;
    refused(disk, "ends at 12, below the applied 19").await;
}

#[tokio::test]
async fn a_log_that_begins_behind_what_was_purged_is_refused() {
    let disk = healthy().await;
    damage(&disk, without(key(LOG, 13)..key(LOG, 14))).await;
    refused(disk, "begins at 14, and should begin at 13").await;
}

#[tokio::test]
async fn a_purged_log_without_its_checkpoint_is_refused() {
    let disk = healthy().await;
    damage(&disk, without(key(CHECKPOINTS, 0)..key(CHECKPOINTS, 13))).await;
    refused(disk, "no checkpoint covers that part").await;
}

#[tokio::test]
async fn a_hole_in_the_log_is_an_error_to_whoever_reads_it() {
    let disk = healthy().await;
    damage(&disk, without(key(LOG, 16)..key(LOG, 17))).await;
    let Replica { mut log, view, .. } = open(disk).await;
    let whole = log.try_get_log_entries(13..23).await;
    let error = whole.expect_err("a hole").to_string();
    assert!(error.contains("entry 16 is missing"), "{error}");
    let behind = log.limited_get_log_entries(16, 23).await;
    let error = behind.expect_err("a hole").to_string();
    assert!(error.contains("entry 16 is missing"), "{error}");
    let read = view.entries(14..20, usize::MAX).await;
    assert!(matches!(read, Err(DiskError::Damaged(_))), "{read:?}");
    let behind = view.entries(17..23, usize::MAX).await.expect("a read");
    assert_eq!(behind, entries(TERM, 17..23));
}

/// Reads everything that is stored, as a scrub does.
async fn scrub(disk: Arc<MemoryDisk>) -> Result<u64, DiskError> {
    let store = ropewalk_raft_store::Store::open(disk, Default::default()).await;
    let store = store.map_err(|error| match error {
        StoreError::Disk(error) => error,
        other => panic!("{other}"),
    })?;
    let replica = store.open_replica(crate::support::GROUP, REPLICA, Sum::default());
    let replica = match replica.await {
        Ok(replica) => replica,
        Err(StoreError::Disk(error)) => return Err(error),
        Err(other) => panic!("{other}"),
    };
    let mut bytes = 0;
    for mut scrub in [store.scrub(), replica.view.scrub()] {
        while let Some(read) = scrub.step(100).await.inspect_err(|_| {
            let told = store.damage().borrow().is_some();
            assert!(told != replica.view.is_damaged(), "one of them is told");
        })? {
            bytes += read;
        }
    }
    assert!(store.damage().borrow().is_none() && !replica.view.is_damaged());
    Ok(bytes)
}

#[tokio::test]
async fn a_scrub_reads_every_stored_value_and_finds_a_flipped_bit_in_any() {
    let disk = healthy().await;
    let (mut keys, mut stored) = (Vec::new(), 0);
    disk.damage(|key, value| {
        keys.push(Bytes::copy_from_slice(key));
        stored += (key.len() + value.len()) as u64;
        false
    });
    assert!(keys.len() > 15);
    assert_eq!(scrub(disk.clone()).await.expect("all is whole"), stored);
    for damaged in keys {
        let copy = Arc::new(disk.crash_image(usize::MAX));
        assert_eq!(copy.damage(|key, _| key == damaged), 1);
        let found = scrub(copy).await;
        assert!(matches!(found, Err(DiskError::Damaged(_))), "{found:?}");
    }
}

/// Opens a replica and reads everything that a node would eventually read of it.
async fn read_all(disk: Arc<MemoryDisk>) -> Result<(), String> {
    let all = |error: &dyn std::fmt::Display| error.to_string();
    let store = ropewalk_raft_store::Store::open(disk, Default::default()).await;
    let store = store.map_err(|error| all(&error))?;
    let replica = store.open_replica(crate::support::GROUP, REPLICA, Sum::default());
    let mut replica = replica.await.map_err(|error| all(&error))?;
    let held = replica.log.try_get_log_entries(0..99).await;
    held.map_err(|error| all(&error))?;
    let snapshot = replica.state.get_current_snapshot().await;
    snapshot.map_err(|error| all(&error))?;
    Ok(())
}

#[tokio::test]
async fn a_flipped_byte_in_any_value_is_found() {
    let disk = healthy().await;
    read_all(disk.clone())
        .await
        .expect("nothing is damaged yet");
    let everything = Bytes::new()..Bytes::from_static(&[255]);
    let limit = ScanLimit {
        max_bytes: usize::MAX,
        max_pairs: usize::MAX,
    };
    let pairs = disk.scan(everything, limit).await.expect("a scan");
    assert!(pairs.len() > 15);
    // A checkpoint newer than the snapshot is not read until it becomes the snapshot.
    let unread = key(CHECKPOINTS, 13)..key(CHECKPOINTS, 99);
    for (key, value) in pairs {
        if unread.contains(&key) {
            continue;
        }
        for at in [0, 4, value.len() / 2, value.len() - 1] {
            let copy = Arc::new(disk.crash_image(usize::MAX));
            let mut flipped = value.to_vec();
            flipped[at.min(value.len() - 1)] ^= 0x10;
            let change = Change::Put {
                key: key.clone(),
                head: Bytes::new(),
                body: flipped.into(),
            };
            damage(&copy, change).await;
            let error = read_all(copy).await.expect_err("a flipped byte");
            assert!(error.contains("checksum does not match"), "{error}");
        }
    }
}
