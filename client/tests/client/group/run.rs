//! Handlers that run concurrently and in order.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_client::{Delivery, RunError};
use tokio::sync::Semaphore;

use super::{Told, fill, subscribe};
use crate::fake::{Fake, offer, soon};

/// Observations of the handlers: the offsets in the order of completion, by partition and key; the running
/// handlers; their maximum number.
#[derive(Default)]
struct Seen {
    finished: BTreeMap<(u32, Vec<u8>), Vec<u64>>,
    at_work: BTreeSet<(u32, Vec<u8>)>,
    most: usize,
    count: usize,
}

fn key(delivery: &Delivery) -> (u32, Vec<u8>) {
    let key = delivery.key.as_ref();
    (
        delivery.partition,
        key.map(|key| key.to_vec()).unwrap_or_default(),
    )
}

#[tokio::test]
async fn records_of_one_key_are_handled_in_order_and_different_keys_side_by_side() {
    let fake = Fake::start(1, 2).await;
    let keys: Vec<String> = (0..200)
        .map(|number| format!("key {}", number % 7))
        .collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for partition in 0..2 {
        fill(&fake, partition, &keys);
    }
    fake.assign(vec![offer(0, 1, false), offer(1, 1, false)]);
    let client = fake.client().await;
    let subscription = subscribe(&client).build().await.unwrap();
    let handle = subscription.handle();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let by_handler = seen.clone();
    let handler = move |delivery: Delivery| {
        let (seen, handle) = (by_handler.clone(), handle.clone());
        async move {
            {
                let mut seen = seen.lock();
                assert!(seen.at_work.insert(key(&delivery)), "two of one key");
                seen.most = seen.most.max(seen.at_work.len());
            }
            // The handlers take different times.
            for _ in 0..delivery.offset % 5 {
                tokio::task::yield_now().await;
            }
            let mut seen = seen.lock();
            seen.at_work.remove(&key(&delivery));
            let of_key = seen.finished.entry(key(&delivery)).or_default();
            of_key.push(delivery.offset);
            seen.count += 1;
            if seen.count == 400 {
                handle.shutdown();
            }
            Ok::<(), Infallible>(())
        }
    };
    soon(subscription.run_concurrent(4, handler)).await.unwrap();
    let seen = seen.lock();
    assert_eq!(seen.finished.len(), 14);
    for offsets in seen.finished.values() {
        assert!(offsets.is_sorted(), "{offsets:?}");
    }
    assert!((2..=4).contains(&seen.most), "{} at a time", seen.most);
    let world = fake.world();
    assert_eq!(world.groups.committed, BTreeMap::from([(0, 200), (1, 200)]));
    assert!(world.groups.has_left());
}

#[tokio::test]
async fn a_handler_that_fails_ends_the_run_after_the_others_and_is_not_committed_past() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0, &["a", "b", "c", "d", "e", "f"]);
    fake.assign(vec![offer(0, 1, false)]);
    let client = fake.client().await;
    // This also holds without automatic commits.
    let subscription = subscribe(&client).auto_commit(None).build().await.unwrap();
    let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (begins, goes) = (begun.clone(), go.clone());
    let handler = move |delivery: Delivery| {
        let (begun, go) = (begins.clone(), goes.clone());
        async move {
            begun.add_permits(1);
            if delivery.offset == 2 {
                return Err("no more");
            }
            go.acquire().await.unwrap().forget();
            Ok(())
        }
    };
    let running = tokio::spawn(subscription.run_concurrent(3, handler));
    soon(begun.acquire_many(3)).await.unwrap().forget();
    go.add_permits(2);
    let error = soon(running).await.unwrap().unwrap_err();
    assert!(matches!(error, RunError::Handler("no more")), "{error:?}");
    assert_eq!(begun.available_permits(), 0, "nothing else was begun");
    let world = fake.world();
    assert_eq!(world.groups.committed[&0], 2);
    assert!(world.groups.has_left());
}

#[tokio::test]
async fn a_revoked_partition_waits_only_for_what_is_being_handled() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0, &["a"; 50]);
    fake.assign(vec![offer(0, 1, false)]);
    let client = fake.client().await;
    let told = Told::default();
    let builder = subscribe(&client).on_rebalance(told.listener());
    let subscription = builder.build().await.unwrap();
    let handle = subscription.handle();
    let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (begins, goes) = (begun.clone(), go.clone());
    let handler = move |_: Delivery| {
        let (begun, go) = (begins.clone(), goes.clone());
        async move {
            begun.add_permits(1);
            go.acquire().await.unwrap().forget();
            Ok::<(), Infallible>(())
        }
    };
    let running = tokio::spawn(subscription.run_concurrent(8, handler));
    soon(begun.acquire()).await.unwrap().forget();
    fake.assign(vec![offer(0, 1, true)]);
    told.exactly(&["assigned 0", "revoked 0"]).await;
    // The handler continues only now. The record that waited behind it for its key never starts.
    go.add_permits(1);
    fake.until("the release", |group| group.released() == [(0, 1)])
        .await;
    handle.shutdown();
    soon(running).await.unwrap().unwrap();
    assert_eq!(begun.available_permits(), 0);
    assert_eq!(fake.world().groups.committed[&0], 1);
}

#[tokio::test]
async fn a_shutdown_waits_for_handlers_commits_what_they_did_and_leaves() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0, &["a", "b", "c"]);
    fake.assign(vec![offer(0, 1, false)]);
    let client = fake.client().await;
    let builder = subscribe(&client).auto_commit(Some(Duration::from_secs(3_600)));
    let subscription = builder.build().await.unwrap();
    let handle = subscription.handle();
    let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (begins, goes) = (begun.clone(), go.clone());
    let handler = move |_: Delivery| {
        let (begun, go) = (begins.clone(), goes.clone());
        async move {
            begun.add_permits(1);
            go.acquire().await.unwrap().forget();
            Ok::<(), Infallible>(())
        }
    };
    let running = tokio::spawn(subscription.run_concurrent(2, handler));
    soon(begun.acquire_many(2)).await.unwrap().forget();
    handle.shutdown();
    go.add_permits(2);
    soon(running).await.unwrap().unwrap();
    assert_eq!(begun.available_permits(), 0, "the third was not begun");
    assert_eq!(fake.world().groups.committed[&0], 2);
    assert!(fake.world().groups.has_left());
    assert!(handle.commit().await.is_err(), "it is closed");
}
