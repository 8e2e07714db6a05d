//! Rewriting applied entries in place, and the state that a power loss leaves of it.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::{
    RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine,
};
use parking_lot::Mutex;
use ropewalk_proto::command::Command;
use ropewalk_raft_store::disk::rocks::{RocksDisk, RocksOptions};
use ropewalk_raft_store::disk::{Disk, MemoryDisk};
use ropewalk_raft_store::types::Entry;
use ropewalk_raft_store::{DiskError, Replica, ReplicaReader, Rewritten, Store, StoreOptions};

use crate::support::{GROUP, REPLICA, Recorder, Sum, TERM, apply, entries, entry, log_id, open};

/// The command to rewrite an entry to. Every third entry stays whole.
fn left_of(entry: &Entry) -> Option<Command> {
    let EntryPayload::Normal(Command::Append { stamp, batch }) = &entry.payload else {
        return None;
    };
    (!entry.log_id.index.is_multiple_of(3)).then(|| Command::Compacted {
        stamp: *stamp,
        came_bytes: batch.len() as u32,
        batch: batch.slice(..5),
    })
}

/// The same, as the callback of a rewrite step.
fn each(entry: &Entry) -> ControlFlow<(), Option<Command>> {
    ControlFlow::Continue(left_of(entry))
}

fn rewritten(index: u64) -> Entry {
    let whole = entry(TERM, index);
    match left_of(&whole) {
        Some(command) => Entry {
            log_id: whole.log_id,
            payload: EntryPayload::Normal(command),
        },
        None => whole,
    }
}

/// A replica that has applied this many entries.
async fn applied(mut replica: Replica<Sum>, count: u64) -> Replica<Sum> {
    let appended = replica.log.blocking_append(entries(TERM, 0..count)).await;
    appended.expect("an append");
    apply(&mut replica.state, entries(TERM, 0..count)).await;
    replica
}

/// Rewrites the log in steps of a few entries.
async fn rewrite_all(view: &ReplicaReader<Sum>, end: u64) -> Rewritten {
    let mut all = Rewritten::default();
    while all.next < end {
        let step = view.rewrite(all.next..end, 700, each).await;
        let step = step.expect("a step");
        assert!(step.next > all.next, "it goes on");
        all.next = step.next;
        all.entries += step.entries;
        all.before_bytes += step.before_bytes;
        all.after_bytes += step.after_bytes;
    }
    all
}

async fn read(view: &ReplicaReader<Sum>, end: u64) -> Vec<Entry> {
    let read = view.entries(0..end, usize::MAX).await;
    read.expect("the log")
}

async fn is_sound(view: &ReplicaReader<Sum>) -> Result<(), DiskError> {
    let mut scrub = view.scrub();
    while scrub.step(1 << 20).await?.is_some() {}
    Ok(())
}

/// The same on any disk; `reopen` opens it again.
async fn entries_are_replaced_and_nothing_else_is(
    disk: Arc<dyn Disk>,
    tail_bytes: usize,
    reopen: impl AsyncFnOnce(Arc<dyn Disk>) -> Arc<dyn Disk>,
) {
    let options = StoreOptions {
        tail_bytes,
        ..StoreOptions::default()
    };
    let store = Store::open(disk.clone(), options).await.expect("a store");
    let replica = store.open_replica(GROUP, REPLICA, Sum::default()).await;
    let mut replica = applied(replica.expect("a replica"), 30).await;
    let bytes = replica.view.log_bytes();
    let done = rewrite_all(&replica.view, 30).await;
    assert_eq!((done.next, done.entries), (30, 20));
    assert!(done.after_bytes < done.before_bytes);
    replica.view.reclaim(0..30);
    replica
        .view
        .put_note(Bytes::from_static(b"done"))
        .await
        .expect("a note");
    let expected: Vec<Entry> = (0..30).map(rewritten).collect();
    assert_eq!(read(&replica.view, 30).await, expected);
    assert_eq!(
        replica.view.log_bytes(),
        bytes,
        "the log is as long as it was"
    );
    assert_eq!(
        rewrite_all(&replica.view, 30).await.entries,
        0,
        "again changes nothing"
    );
    // Later entries are counted as if nothing had been replaced.
    let more = replica.log.blocking_append(entries(TERM, 30..31)).await;
    more.expect("an append");
    let grown = replica.view.log_bytes();
    is_sound(&replica.view).await.expect("no damage");
    store.close().await;
    drop((replica, store));

    let disk = reopen(disk).await;
    let replica = open(disk).await;
    assert_eq!(read(&replica.view, 30).await, expected);
    assert_eq!(replica.view.log_bytes(), grown);
    let note = replica.view.note().await.expect("a note");
    assert_eq!(note, Some(Bytes::from_static(b"done")));
    is_sound(&replica.view).await.expect("no damage");
}

#[tokio::test]
async fn entries_are_replaced_in_memory_and_on_the_disk() {
    for tail_bytes in [0, 2_000, 64 << 20] {
        let disk = Recorder::new();
        entries_are_replaced_and_nothing_else_is(disk, tail_bytes, async |disk| disk).await;
    }
}

#[tokio::test]
async fn entries_are_replaced_in_a_database() {
    for tail_bytes in [0, 64 << 20] {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || {
            let disk = RocksDisk::open(dir.path(), RocksOptions::default());
            Arc::new(disk.expect("a database"))
        };
        let disk: Arc<dyn Disk> = open();
        entries_are_replaced_and_nothing_else_is(disk, tail_bytes, async |disk| {
            drop(disk);
            // The committer's task drops the old disk once it has ended.
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            let disk: Arc<dyn Disk> = open();
            disk
        })
        .await;
    }
}

#[tokio::test]
async fn a_power_loss_leaves_each_entry_as_it_was_or_as_it_is_to_be() {
    let disk = Recorder::new();
    let mut replica = applied(open(disk.clone()).await, 30).await;
    // Waits until the effects of applying are written.
    let snapshot = replica.state.get_current_snapshot().await;
    snapshot.expect("a read");
    let before = disk.images().len() - 1;
    rewrite_all(&replica.view, 30).await;
    let note = Bytes::from_static(b"done");
    replica.view.put_note(note.clone()).await.expect("a note");
    assert_eq!(disk.synced(), disk.images().len() - 1, "a note is synced");
    let (mut mixed, mut done) = (0, 0);
    for image in disk.images().into_iter().skip(before) {
        let replica = open(image).await;
        let found = read(&replica.view, 30).await;
        assert_eq!(found.len(), 30);
        let mut new = 0;
        for (found, index) in found.iter().zip(0..) {
            let is_new = *found == rewritten(index);
            assert!(
                is_new || *found == entry(TERM, index),
                "entry {index} is neither"
            );
            new += usize::from(is_new);
        }
        let noted = replica.view.note().await.expect("a read");
        assert!(noted.is_none() || new == 30, "noted before it was done");
        mixed += usize::from((11..30).contains(&new));
        done += usize::from(noted.is_some());
        // The rewrite starts over and gives the same result.
        rewrite_all(&replica.view, 30).await;
        let expected: Vec<Entry> = (0..30).map(rewritten).collect();
        assert_eq!(read(&replica.view, 30).await, expected);
    }
    assert!(mixed > 2 && done == 1, "{mixed} in the midst, {done} done");
}

#[tokio::test]
async fn what_is_purged_or_not_applied_is_not_written() {
    let disk = Recorder::new();
    let mut replica = applied(open(disk.clone()).await, 30).await;
    let more = replica.log.blocking_append(entries(TERM, 30..34)).await;
    more.expect("an append");
    let step = replica.view.rewrite(28..34, usize::MAX, each).await;
    let step = step.expect("a step");
    assert_eq!((step.next, step.entries), (30, 2), "30 is not applied");
    let step = replica.view.rewrite(30..34, usize::MAX, each).await;
    let step = step.expect("a step");
    assert_eq!((step.next, step.entries), (30, 0), "nor is what follows");

    let mut builder = replica.state.get_snapshot_builder().await;
    builder.build_snapshot().await.expect("a snapshot");
    replica.log.purge(log_id(TERM, 24)).await.expect("a purge");
    let step = replica.view.rewrite(20..30, usize::MAX, each).await;
    assert_eq!(step.expect("a step").next, 20, "20 is gone");
    // A log with an entry before its beginning would not open.
    let mut replica = open(disk.now()).await;
    let held = replica.log.try_get_log_entries(25..30).await;
    assert_eq!(held.expect("the log").len(), 5);
}

#[tokio::test]
async fn a_purge_in_the_midst_of_a_step_leaves_nothing_before_the_log() {
    let disk = Recorder::new();
    let mut replica = applied(open(disk.clone()).await, 30).await;
    let mut builder = replica.state.get_snapshot_builder().await;
    builder.build_snapshot().await.expect("a snapshot");
    let view = replica.view.clone();
    let purge = replica.log.purge(log_id(TERM, 24));
    let (purged, step) = tokio::join!(purge, view.rewrite(0..30, usize::MAX, each));
    purged.expect("a purge");
    step.expect("a step");
    for image in disk.images() {
        open(image).await;
    }
    let replica = open(disk.now()).await;
    assert_eq!(
        replica
            .view
            .entries(0..30, usize::MAX)
            .await
            .expect("the log")
            .len(),
        5
    );
}

#[tokio::test]
async fn what_is_purged_after_it_was_read_is_not_written_again() {
    let disk = Recorder::new();
    let mut replica = applied(open(disk.clone()).await, 30).await;
    let mut builder = replica.state.get_snapshot_builder().await;
    builder.build_snapshot().await.expect("a snapshot");
    let view = replica.view.clone();
    let purge = Mutex::new(Box::pin(replica.log.purge(log_id(TERM, 24))));
    let begun = AtomicBool::new(false);
    let begin_to_purge = |entry: &Entry| {
        if !begun.swap(true, Ordering::Relaxed) {
            let mut context = Context::from_waker(Waker::noop());
            let polled = purge.lock().as_mut().poll(&mut context);
            assert!(polled.is_pending(), "it is on its way to the disk");
        }
        each(entry)
    };
    let purged = poll_fn(|context| {
        if begun.load(Ordering::Relaxed) {
            return purge.lock().as_mut().poll(context);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    });
    let step = view.rewrite(0..30, usize::MAX, begin_to_purge);
    let (step, purged) = tokio::join!(step, purged);
    step.expect("a step");
    purged.expect("a purge");
    let replica = open(disk.now()).await;
    let left = replica.view.entries(25..30, usize::MAX).await;
    assert_eq!(left.expect("the log").len(), 5);
}

#[tokio::test]
async fn a_step_that_is_broken_off_is_gone_on_with_where_it_was() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let store = Store::open(disk, StoreOptions::default()).await;
    let store = store.expect("a store");
    let replica = store.open_replica(GROUP, REPLICA, Sum::default()).await;
    let replica = applied(replica.expect("a replica"), 10).await;
    let mut looked = Vec::new();
    let until_five = |entry: &Entry| match entry.log_id.index {
        5 => ControlFlow::Break(()),
        index => {
            looked.push(index);
            each(entry)
        }
    };
    let step = replica.view.rewrite(0..10, usize::MAX, until_five).await;
    let step = step.expect("a step");
    assert_eq!((step.next, step.entries), (5, 3));
    assert_eq!(looked, [0, 1, 2, 3, 4]);
    let untouched = (5..10).map(|index| entry(TERM, index));
    let expected: Vec<Entry> = (0..5).map(rewritten).chain(untouched).collect();
    assert_eq!(read(&replica.view, 10).await, expected);
    assert_eq!(rewrite_all(&replica.view, 10).await.next, 10);
    let expected: Vec<Entry> = (0..10).map(rewritten).collect();
    assert_eq!(read(&replica.view, 10).await, expected);
}
