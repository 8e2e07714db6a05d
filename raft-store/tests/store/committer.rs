//! The committer: order, merging, bounds, and its behaviour after the disk has failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use ropewalk_raft_store::committer::{Committer, CommitterOptions, DiskStatus, Durability};
use ropewalk_raft_store::disk::{Change, ChangeBatch, Disk, DiskError, MemoryDisk};
use tokio::sync::Semaphore;

/// A memory disk that counts commits and makes each one wait for a permit.
#[derive(Debug)]
struct Gated {
    inner: MemoryDisk,
    permits: Semaphore,
    commits: AtomicUsize,
    /// Number of reads of its free space.
    looks: AtomicUsize,
}

impl Gated {
    fn new(permits: usize) -> Arc<Gated> {
        Arc::new(Gated {
            inner: MemoryDisk::new(),
            permits: Semaphore::new(permits),
            commits: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
        })
    }
}

impl Disk for Gated {
    reads_of_inner!();

    fn commit(&self, batch: ChangeBatch, sync: bool) -> BoxFuture<'_, Result<(), DiskError>> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let permit = self.permits.acquire().await.expect("never closed");
            permit.forget();
            // Like a real disk, it lets other tasks run meanwhile.
            tokio::task::yield_now().await;
            self.inner.commit(batch, sync).await
        })
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.inner.free_bytes()
    }
}

const UNGATED: usize = Semaphore::MAX_PERMITS / 2;

fn key(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn put(number: u32, value_bytes: usize) -> ChangeBatch {
    ChangeBatch {
        changes: vec![Change::Put {
            key: key(number),
            head: Bytes::new(),
            body: Bytes::from(vec![7; value_bytes]),
        }],
    }
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Lets every other task run until it waits.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn those_who_wait_while_a_sync_runs_share_the_next_one() {
    let disk = Gated::new(0);
    let committer = Committer::start(disk.clone(), CommitterOptions::default());
    let first = tokio::spawn({
        let committer = committer.clone();
        async move { committer.commit(put(0, 10), Durability::Synced).await }
    });
    settle().await;
    let others: Vec<_> = (1..=200)
        .map(|number| {
            let committer = committer.clone();
            let commit = async move { committer.commit(put(number, 10), Durability::Synced).await };
            tokio::spawn(commit)
        })
        .collect();
    settle().await;
    assert!(!first.is_finished(), "nothing is done before its sync");
    disk.permits.add_permits(2);
    for waiter in std::iter::once(first).chain(others) {
        waiter.await.expect("no panic").expect("a commit");
    }
    assert_eq!(count(&committer.counters().syncs), 2);
    assert_eq!(count(&committer.counters().batches), 2);
    assert_eq!(disk.inner.unsynced_batches(), 0);
    for number in 0..=200 {
        let value = disk.get(key(number)).await.expect("a read");
        assert_eq!(value.map(|value| value.len()), Some(10));
    }
}

#[tokio::test]
async fn a_batch_ends_where_its_limit_is_and_nothing_is_left_out() {
    let disk = Gated::new(UNGATED);
    let options = CommitterOptions {
        batch_bytes: 1_000,
        ..CommitterOptions::default()
    };
    let committer = Committer::start(disk.clone(), options);
    // Each costs 368 bytes, so two fit. The one of 5,000 goes alone.
    let sizes = [300, 300, 300, 5_000, 300, 300];
    let commits = sizes
        .iter()
        .zip(0..)
        .map(|(&size, number)| committer.commit(put(number, size), Durability::Unsynced));
    for result in join_all(commits).await {
        result.expect("a commit");
    }
    assert_eq!(count(&committer.counters().batches), 4);
    assert_eq!(count(&committer.counters().syncs), 0);
    for (&size, number) in sizes.iter().zip(0..) {
        let value = disk.get(key(number)).await.expect("a read");
        assert_eq!(value.map(|value| value.len()), Some(size));
    }
}

#[tokio::test]
async fn callbacks_come_in_the_order_of_submission_and_after_the_write() {
    let disk = Gated::new(UNGATED);
    let options = CommitterOptions {
        batch_bytes: 500,
        ..CommitterOptions::default()
    };
    let committer = Committer::start(disk.clone(), options);
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..100 {
        let (order, disk) = (order.clone(), disk.clone());
        let durability = match number % 3 {
            0 => Durability::Synced,
            _ => Durability::Unsynced,
        };
        let done = move |result: Result<(), DiskError>| {
            result.expect("a commit");
            let read = disk.get(key(number)).now_or_never();
            assert!(read.expect("memory").expect("a read").is_some());
            if durability == Durability::Synced {
                assert_eq!(disk.inner.unsynced_batches(), 0);
            }
            order.lock().push(number);
        };
        committer.submit(put(number, 50), durability, done).await;
    }
    committer.close().await;
    assert_eq!(*order.lock(), (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn past_the_queue_s_bytes_a_submission_waits_for_room() {
    let disk = Gated::new(0);
    let options = CommitterOptions {
        queue_bytes: 1_000,
        ..CommitterOptions::default()
    };
    let committer = Committer::start(disk.clone(), options);
    let taken = Arc::new(AtomicUsize::new(0));
    let producer = tokio::spawn({
        let (committer, taken) = (committer.clone(), taken.clone());
        async move {
            for number in 0..20 {
                // 368 bytes each; the last is larger than the whole queue.
                let size = if number == 19 { 10_000 } else { 300 };
                committer
                    .submit(put(number, size), Durability::Synced, |result| {
                        result.expect("a commit");
                    })
                    .await;
                taken.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    settle().await;
    assert_eq!(taken.load(Ordering::SeqCst), 2, "a third does not fit");
    disk.permits.add_permits(1);
    settle().await;
    let more = taken.load(Ordering::SeqCst);
    assert!((3..=4).contains(&more), "room for at most two: {more}");
    disk.permits.add_permits(UNGATED);
    producer.await.expect("no panic");
    committer.close().await;
    assert_eq!(taken.load(Ordering::SeqCst), 20);
    let large = disk.get(key(19)).await.expect("a read");
    assert_eq!(large.map(|value| value.len()), Some(10_000));
}

#[tokio::test]
async fn after_a_failed_commit_everything_fails_and_the_disk_is_left_alone() {
    let disk = Gated::new(UNGATED);
    let committer = Committer::start(disk.clone(), CommitterOptions::default());
    let status = committer.status();
    let commit = |number| committer.commit(put(number, 10), Durability::Synced);
    commit(0).await.expect("a commit");
    let error = DiskError::Failed("input/output error".to_string());
    disk.inner.fail_next_commit(error);
    // Two commits in one batch fail together.
    for result in join_all([commit(1), commit(2)]).await {
        result.expect_err("the disk failed");
    }
    let failed = status.borrow().clone();
    let DiskStatus::Failed(reason) = failed else {
        panic!("the disk counts as {failed:?}");
    };
    assert!(reason.contains("input/output error"), "{reason}");
    let commits = disk.commits.load(Ordering::SeqCst);
    for number in 3..10 {
        let later = commit(number).await;
        assert!(matches!(later, Err(DiskError::Failed(_))), "{later:?}");
    }
    assert_eq!(disk.commits.load(Ordering::SeqCst), commits, "no retry");
    assert_eq!(count(&committer.counters().batches), 1);
    assert_eq!(disk.get(key(1)).await.expect("a read"), None);
}

fn watched(batch_bytes: usize) -> CommitterOptions {
    CommitterOptions {
        batch_bytes,
        queue_bytes: 10_000,
        free_space_floor_bytes: 5_000,
        free_space_interval: Duration::from_millis(1),
    }
}

#[tokio::test]
async fn a_disk_below_the_floor_is_full_until_there_is_space_again() {
    let disk = Gated::new(UNGATED);
    disk.inner.set_free_bytes(10_000);
    let committer = Committer::start(disk.clone(), watched(1_000));
    let mut status = committer.status();
    assert_eq!(*status.borrow(), DiskStatus::Healthy);
    disk.inner.set_free_bytes(4_999);
    status.changed().await.expect("the committer lives");
    assert_eq!(*status.borrow_and_update(), DiskStatus::Full);
    // Raft can still write what it must: the floor reserves the space for that.
    let commit = committer.commit(put(1, 10), Durability::Synced).await;
    commit.expect("a disk below the floor still writes");
    disk.inner.set_free_bytes(5_000);
    status.changed().await.expect("the committer lives");
    assert_eq!(*status.borrow_and_update(), DiskStatus::Healthy);
    // A failed disk stays failed, however much space it has.
    let error = DiskError::Full("no space left".to_string());
    disk.inner.fail_next_commit(error);
    let commit = committer.commit(put(2, 10), Durability::Synced).await;
    commit.expect_err("the disk failed");
    let looks = disk.looks.load(Ordering::SeqCst);
    while disk.looks.load(Ordering::SeqCst) < looks + 3 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(*status.borrow(), DiskStatus::Failed(_)));
}

#[tokio::test]
async fn free_space_is_looked_at_while_the_queue_never_empties() {
    let disk = Gated::new(UNGATED);
    disk.inner.set_free_bytes(10_000);
    // No two submissions fit into one batch, so one is always left over.
    let committer = Committer::start(disk.clone(), watched(1));
    let mut status = committer.status();
    let load = tokio::spawn(async move {
        loop {
            committer
                .submit(put(1, 100), Durability::Unsynced, drop)
                .await;
        }
    });
    settle().await;
    disk.inner.set_free_bytes(0);
    let full = status.wait_for(|status| *status == DiskStatus::Full);
    let seen = tokio::time::timeout(Duration::from_secs(10), full).await;
    load.abort();
    seen.expect("it is seen in time").expect("it still runs");
}

#[tokio::test]
async fn close_syncs_what_was_queued_and_takes_no_more() {
    let disk = Gated::new(UNGATED);
    let committer = Committer::start(disk.clone(), CommitterOptions::default());
    for number in 0..10 {
        committer
            .submit(put(number, 10), Durability::Unsynced, drop)
            .await;
    }
    committer.close().await;
    assert_eq!(disk.inner.unsynced_batches(), 0);
    for number in 0..10 {
        let value = disk.inner.crash_image(0).get(key(number)).await;
        assert!(value.expect("a read").is_some());
    }
    let late = committer.commit(put(99, 10), Durability::Synced).await;
    assert!(matches!(late, Err(DiskError::Failed(_))), "{late:?}");
    assert_eq!(disk.get(key(99)).await.expect("a read"), None);
    committer.close().await;
}
