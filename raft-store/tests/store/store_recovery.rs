//! The state of a replica after a power loss, at every point at which power can fail.

use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use openraft::storage::{
    IOFlushed, RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder,
    RaftStateMachine,
};
use ropewalk_raft_store::disk::{Disk, MemoryDisk};
use ropewalk_raft_store::types::{SnapshotMeta, Vote};
use ropewalk_raft_store::{LogStore, Replica};

use crate::support::{REPLICA, Recorder, Sum, TERM, apply, entries, entry, log_id, open};

/// Appends entries and waits for their sync.
async fn append(log: &mut LogStore, term: u64, range: Range<u64>) {
    let appended = log.blocking_append(entries(term, range)).await;
    appended.expect("an append");
}

/// Opens an image like a restarted node and applies its log. Checks that state and log are a prefix of the
/// one history, without a gap. Returns the end of the log.
async fn restart(image: &Arc<MemoryDisk>, term_of: impl Fn(u64) -> u64) -> Option<u64> {
    let Replica {
        mut log,
        mut state,
        view,
    } = open(image.clone() as Arc<dyn Disk>).await;
    let found = log.get_log_state().await.expect("marks");
    let end = found.last_log_id.map(|last| last.index);
    let purged = found.last_purged_log_id.map(|purged| purged.index);
    let (applied, _) = state.applied_state().await.expect("a position");
    assert!(
        applied <= found.last_log_id,
        "the state is ahead of its log"
    );
    let first = purged.map_or(0, |purged| purged + 1);
    let next = end.map_or(0, |end| end + 1);
    let held = log.try_get_log_entries(first..next).await.expect("the log");
    let expected: Vec<_> = (first..next)
        .map(|index| entry(term_of(index), index))
        .collect();
    assert_eq!(held, expected);
    if let Some(applied) = applied {
        assert_eq!(*view.machine(), Sum::after(applied.index));
    }
    let rest = applied.map_or(0, |applied| applied.index + 1);
    assert!(rest >= first, "applied is below what was purged");
    if let Some(end) = end {
        let entries = log.try_get_log_entries(rest..next).await;
        apply(&mut state, entries.expect("the log")).await;
        assert_eq!(*view.machine(), Sum::after(end));
    }
    end
}

#[tokio::test]
async fn an_entry_and_a_vote_that_were_synced_survive_every_crash() {
    let disk = Recorder::new();
    let mut replica = open(disk.clone()).await;
    // The promises, and the first image that must keep each.
    let mut votes = Vec::new();
    let mut appended = Vec::new();
    for round in 0..12_u64 {
        let vote = Vote::new_committed(round + 1, REPLICA);
        replica.log.save_vote(&vote).await.expect("a vote");
        votes.push((vote, disk.synced()));
        append(&mut replica.log, TERM, round * 3..round * 3 + 3).await;
        appended.push((round * 3 + 2, disk.synced()));
        let committed = Some(log_id(TERM, round * 3));
        replica.log.save_committed(committed).await.expect("saved");
        apply(&mut replica.state, entries(TERM, round * 3..round * 3 + 3)).await;
    }
    let images = disk.images();
    assert!(images.len() > 24, "crash points: {}", images.len());
    for (point, image) in images.iter().enumerate() {
        let end = restart(image, |_| TERM).await;
        for &(index, since) in &appended {
            assert!(
                since > point || end >= Some(index),
                "entry {index} was lost by a crash at {point}"
            );
        }
        let vote = open(image.clone()).await.log.read_vote().await;
        let vote = vote.expect("a read");
        for &(promised, since) in &votes {
            assert!(since > point || vote >= Some(promised), "a vote was lost");
        }
    }
}

/// Lets every other task run until it waits.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn effects_stand_behind_their_entries_though_nobody_waits_for_a_sync() {
    let disk = Recorder::new();
    let mut replica = open(disk.clone()).await;
    for index in 0..40 {
        let one = entries(TERM, index..index + 1);
        let appended = replica.log.append(one, IOFlushed::noop()).await;
        appended.expect("an append");
        // Like a leader whose followers were faster than its own disk.
        let readable = replica.view.entries(index..index + 1, 1).await;
        apply(&mut replica.state, readable.expect("a read")).await;
        if index % 3 == 0 {
            settle().await;
        }
    }
    append(&mut replica.log, TERM, 40..41).await;
    let images = disk.images();
    assert!(images.len() > 10, "crash points: {}", images.len());
    for image in images {
        restart(&image, |_| TERM).await;
    }
}

#[tokio::test]
async fn what_can_be_read_of_an_append_under_way_can_be_applied_safely() {
    let disk = Recorder::new();
    let mut replica = open(disk.clone()).await;
    append(&mut replica.log, TERM, 0..2).await;
    apply(&mut replica.state, entries(TERM, 0..2)).await;
    let mut log = replica.log.clone();
    let mut appending = pin!(log.append(entries(TERM, 2..6), IOFlushed::noop()));
    // An append that has to wait stops at the first point at which it can.
    let mut stopped = poll_fn(|cx| {
        let mut consume = pin!(tokio::task::consume_budget());
        while consume.as_mut().poll(cx).is_ready() {
            consume.set(tokio::task::consume_budget());
        }
        Poll::Ready(appending.as_mut().poll(cx))
    })
    .await;
    assert!(stopped.is_pending(), "it went through without a wait");
    settle().await;
    // A reader that applies meanwhile takes the entries it can read.
    let readable = replica.view.entries(2..6, usize::MAX).await;
    let readable = readable.expect("a read");
    let next = 2 + readable.len() as u64;
    apply(&mut replica.state, readable).await;
    settle().await;
    if stopped.is_pending() {
        stopped = Poll::Ready(appending.await);
    }
    assert!(matches!(stopped, Poll::Ready(Ok(()))));
    apply(&mut replica.state, entries(TERM, next..6)).await;
    append(&mut replica.log, TERM, 6..7).await;
    for image in disk.images() {
        restart(&image, |_| TERM).await;
    }
}

#[tokio::test]
async fn a_purge_keeps_the_checkpoint_that_stands_in_for_the_log() {
    let disk = Recorder::new();
    let mut replica = open(disk.clone()).await;
    let mut promised = Vec::new();
    for round in 0..5_u64 {
        let range = round * 10..round * 10 + 10;
        append(&mut replica.log, TERM, range.clone()).await;
        promised.push((range.end - 1, disk.synced()));
        apply(&mut replica.state, entries(TERM, range)).await;
        let mut builder = replica.state.get_snapshot_builder().await;
        let snapshot = builder.build_snapshot().await.expect("a snapshot");
        let to = snapshot.meta.last_log_id.expect("of something");
        assert!(to.index > round * 10 && to.index < round * 10 + 9);
        replica.log.purge(to).await.expect("a purge");
        assert_eq!(replica.view.purged_index(), Some(to.index));
    }
    append(&mut replica.log, TERM, 50..51).await;
    let images = disk.images();
    let mut purged = 0;
    for (point, image) in images.iter().enumerate() {
        let end = restart(image, |_| TERM).await;
        for &(index, since) in &promised {
            assert!(since > point || end >= Some(index), "{index} was lost");
        }
        let mut replica = open(image.clone()).await;
        if let Some(index) = replica.view.purged_index() {
            purged += 1;
            let snapshot = replica.state.get_current_snapshot().await;
            let snapshot = snapshot.expect("a read").expect("a snapshot");
            let covers = snapshot.meta.last_log_id.expect("of something").index;
            assert!(covers >= index);
            let mut sum = Sum::default();
            ropewalk_machines::Machine::restore(&mut sum, snapshot.snapshot).expect("a state");
            assert_eq!(sum, Sum::after(covers));
        }
    }
    assert!(purged > 4, "a crash after a purge: {purged}");
}

#[tokio::test]
async fn a_truncated_log_is_the_old_one_or_the_new_one_and_never_both() {
    let disk = Recorder::new();
    let mut replica = open(disk.clone()).await;
    append(&mut replica.log, 1, 0..12).await;
    apply(&mut replica.state, entries(1, 0..5)).await;
    let old = disk.synced();
    let truncated = replica.log.truncate_after(Some(log_id(1, 5))).await;
    truncated.expect("a truncation");
    append(&mut replica.log, 2, 6..9).await;
    let new = disk.synced();
    let (mut olds, mut news) = (0, 0);
    for (point, image) in disk.images().iter().enumerate() {
        let sixth = open(image.clone()).await.view.entries(6..7, 1).await;
        let sixth = sixth.expect("a read").pop();
        let switched = sixth.is_some_and(|entry| entry.log_id.committed_leader_id().term == 2);
        let end = restart(image, |index| if switched && index > 5 { 2 } else { 1 }).await;
        match (switched, end) {
            (false, Some(11)) => olds += 1,
            (true, Some(8)) => news += 1,
            // Between the two, or before the first.
            (false, Some(5)) => assert!(old <= point && point < new),
            (_, end) => assert!(point < old, "a log that ends at {end:?}"),
        }
        assert!(point < new || switched, "the new entries were lost");
    }
    assert!(olds > 0 && news > 0);
}

/// The snapshot of a replica as of 8, from a log that continues to 12.
async fn snapshot_at_8() -> (SnapshotMeta, bytes::Bytes) {
    let mut leader = open(Arc::new(MemoryDisk::new())).await;
    append(&mut leader.log, TERM, 0..13).await;
    apply(&mut leader.state, entries(TERM, 0..13)).await;
    let mut builder = leader.state.get_snapshot_builder().await;
    let snapshot = builder.build_snapshot().await.expect("a snapshot");
    assert_eq!(snapshot.meta.last_log_id, Some(log_id(TERM, 8)));
    (snapshot.meta, snapshot.snapshot)
}

#[tokio::test]
async fn a_snapshot_is_installed_as_a_whole_or_not_at_all() {
    let (meta, state) = snapshot_at_8().await;
    // An empty replica, one whose log ends below the snapshot, and one whose log ends after it.
    for length in [0, 4, 11] {
        let disk = Recorder::new();
        let mut replica = open(disk.clone()).await;
        if length > 0 {
            append(&mut replica.log, TERM, 0..length).await;
            apply(&mut replica.state, entries(TERM, 0..3)).await;
        }
        let before = disk.images().len();
        let installed = replica.state.install_snapshot(&meta, state.clone()).await;
        installed.expect("an install");
        let since = disk.synced();
        assert_eq!(*replica.view.machine(), Sum::after(8));
        let next = length.max(9);
        append(&mut replica.log, TERM, next..next + 2).await;
        for (point, image) in disk.images().iter().enumerate() {
            let end = restart(image, |_| TERM).await;
            let replica = open(image.clone()).await;
            let purged = replica.view.purged_index();
            assert!(purged.is_none() || purged == Some(8));
            assert!(point < since || purged == Some(8), "the snapshot was lost");
            assert!(point < since || end >= Some(next - 1));
            assert!(point < before || end >= length.checked_sub(1));
        }
    }
}
