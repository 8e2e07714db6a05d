//! Assignment, revocation and loss of partitions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ropewalk_client::{ErrorCode, Offset, Rebalance, SubscriptionHandle};
use ropewalk_proto::v1::group_request::Kind as Ask;

use super::{Told, fill, next, nothing_comes, subscribe, take};
use crate::fake::{Fake, React, offer};

#[tokio::test]
async fn a_first_assignment_without_position_commits_the_starting_point_before_reading() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0, &["a"; 20]);
    fake.assign(vec![offer(0, 3, false)]);
    let committed = Arc::new(AtomicBool::new(false));
    let (by_commit, by_fetch) = (committed.clone(), committed.clone());
    let reads_first = Arc::new(AtomicBool::new(false));
    let read = reads_first.clone();
    fake.world().groups.script = Box::new(move |ask| {
        by_commit.fetch_or(matches!(ask, Ask::Commit(_)), Ordering::Relaxed);
        React::Obey
    });
    fake.world().fetch_script = Box::new(move |_| {
        read.fetch_or(!by_fetch.load(Ordering::Relaxed), Ordering::Relaxed);
        None
    });
    let client = fake.client().await;
    // Even with manual commits: the end moves a moment later.
    let builder = subscribe(&client).from(Offset::End).auto_commit(None);
    let mut subscription = builder.build().await.unwrap();
    fake.until("the starting point", |group| group.commits(0) == [(3, 20)])
        .await;
    let producer = client.producer(crate::fake::TOPIC).build().await.unwrap();
    let record = ropewalk_client::Record::new().value("new");
    producer.send(record).await.unwrap().await.unwrap();
    take(&mut subscription, 20..21).await.pop().unwrap().ack();
    subscription.close().await.unwrap();
    let commits = fake.world().groups.commits(0);
    assert_eq!(commits, [(3, 20)], "the application did not commit");
    assert!(!reads_first.load(Ordering::Relaxed), "it reads first");
}

#[tokio::test]
async fn nothing_is_read_before_its_starting_point_is_committed_though_more_is_assigned() {
    let fake = Fake::start(1, 2).await;
    fill(&fake, 0, &["a"; 20]);
    fake.assign(vec![offer(0, 3, false)]);
    fake.world().groups.script = Box::new(|ask| match ask {
        Ask::Commit(_) => React::Ignore,
        _ => React::Obey,
    });
    let fetched = Arc::new(AtomicBool::new(false));
    let by_fetch = fetched.clone();
    fake.world().fetch_script = Box::new(move |_| {
        by_fetch.store(true, Ordering::Relaxed);
        None
    });
    let told = Told::default();
    let client = fake.client().await;
    let builder = subscribe(&client).on_rebalance(told.listener());
    let mut subscription = builder.build().await.unwrap();
    let asked = |ask: &Ask| matches!(ask, Ask::Commit(_));
    fake.until("a commit that is not answered", |group| {
        group.said.iter().any(|(_, ask)| asked(ask))
    })
    .await;
    fake.assign(vec![offer(0, 3, false), offer(1, 3, false)]);
    told.exactly(&["assigned 0", "assigned 1"]).await;
    for _ in 0..20 {
        assert!(nothing_comes(&mut subscription));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!fetched.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_group_goes_on_where_it_was() {
    let fake = Fake::start(1, 2).await;
    for partition in 0..2 {
        fill(&fake, partition, &["a"; 10]);
    }
    fake.world().groups.committed.extend([(0, 7), (1, 10)]);
    fake.assign(vec![offer(0, 1, false), offer(1, 1, false)]);
    let client = fake.client().await;
    let mut subscription = subscribe(&client).build().await.unwrap();
    let all = take(&mut subscription, 7..10).await;
    assert!(all.iter().all(|delivery| delivery.partition == 0));
    assert_eq!(all[0].topic(), crate::fake::TOPIC);
    assert_eq!(subscription.assignment().len(), 2);
    assert_eq!(subscription.generation(), 2);
    fill(&fake, 1, &["a"]);
    fake.move_leader(1, 1);
    assert_eq!(next(&mut subscription).await.offset, 10);
}

#[tokio::test]
async fn a_revoked_partition_is_committed_and_released_after_its_deliveries_are_done() {
    let fake = Fake::start(1, 2).await;
    fill(&fake, 0, &["a"; 10]);
    fake.assign(vec![offer(0, 5, false)]);
    let told = Told::default();
    let client = fake.client().await;
    let builder = subscribe(&client).on_rebalance(told.listener());
    let mut subscription = builder.build().await.unwrap();
    let mut taken = take(&mut subscription, 0..3).await;
    taken.remove(0).ack();
    fake.assign(vec![offer(0, 5, true), offer(1, 6, false)]);
    told.exactly(&["assigned 0", "revoked 0", "assigned 1"])
        .await;
    // None of its prefetched records is delivered.
    fill(&fake, 1, &["b"]);
    fake.move_leader(1, 1);
    assert_eq!(next(&mut subscription).await.partition, 1);
    taken.remove(0).ack();
    fake.until("what is done", |group| group.committed[&0] == 2)
        .await;
    assert_eq!(fake.world().groups.released(), [], "one is still out");
    taken.remove(0).ack();
    fake.until("the release", |group| group.released() == [(0, 5)])
        .await;
    assert_eq!(fake.world().groups.committed[&0], 3);
    fake.assign(vec![offer(1, 6, false)]);
    subscription.close().await.unwrap();
    told.exactly(&["assigned 0", "revoked 0", "assigned 1"])
        .await;
}

#[tokio::test]
async fn a_revoked_partition_whose_handler_hangs_is_released_in_time_and_its_late_done_is_nothing()
{
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0, &["a"; 10]);
    fake.assign(vec![offer(0, 5, false)]);
    let client = fake.client().await;
    let builder = subscribe(&client).rebalance_timeout(Duration::from_millis(100));
    let mut subscription = builder.build().await.unwrap();
    let mut taken = take(&mut subscription, 0..3).await;
    taken.remove(0).ack();
    fake.assign(vec![offer(0, 5, true)]);
    fake.until("the release", |group| group.released() == [(0, 5)])
        .await;
    drop(
        taken
            .drain(..)
            .map(|delivery| delivery.ack())
            .collect::<Vec<_>>(),
    );
    subscription.close().await.unwrap();
    assert_eq!(fake.world().groups.commits(0).last(), Some(&(5, 1)));
}

#[tokio::test]
async fn a_lost_partitions_late_done_commits_nothing() {
    let fake = Fake::start(1, 2).await;
    fill(&fake, 0, &["a"; 10]);
    fake.assign(vec![offer(0, 5, false), offer(1, 5, false)]);
    let told = Told::default();
    let client = fake.client().await;
    let builder = subscribe(&client).on_rebalance(told.listener());
    let mut subscription = builder.build().await.unwrap();
    let mut taken = take(&mut subscription, 0..2).await;
    fake.until("the start", |group| group.committed.len() == 2)
        .await;
    fake.assign(vec![offer(1, 5, false)]);
    told.exactly(&["assigned 0 1", "lost 0"]).await;
    assert!(nothing_comes(&mut subscription));
    taken.remove(1).ack();
    subscription.commit().await.unwrap();
    // The partition comes back in another epoch, and is read again from the group's position.
    fake.assign(vec![offer(0, 6, false), offer(1, 5, false)]);
    let again = take(&mut subscription, 0..2).await;
    taken.remove(0).ack();
    subscription.commit().await.unwrap();
    assert_eq!(fake.world().groups.commits(0), [(5, 0)]);
    for delivery in again {
        delivery.ack();
    }
    subscription.commit().await.unwrap();
    assert_eq!(fake.world().groups.commits(0), [(5, 0), (6, 2)]);
    told.exactly(&["assigned 0 1", "lost 0", "assigned 0"])
        .await;
}

#[tokio::test]
async fn a_partition_that_is_not_taken_away_after_all_is_read_on_from_its_commits() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0, &["a"; 10]);
    fake.assign(vec![offer(0, 5, false)]);
    let told = Told::default();
    let client = fake.client().await;
    let builder = subscribe(&client).on_rebalance(told.listener());
    let mut subscription = builder.build().await.unwrap();
    let mut taken = take(&mut subscription, 0..4).await;
    taken.remove(0).ack();
    fake.assign(vec![offer(0, 5, true)]);
    told.exactly(&["assigned 0", "revoked 0"]).await;
    fake.assign(vec![offer(0, 5, false)]);
    let again = take(&mut subscription, 1..10).await;
    fake.until("what was done before", |group| group.committed[&0] == 1)
        .await;
    // It was outstanding before, and is outstanding again.
    taken.remove(0).ack();
    subscription.commit().await.unwrap();
    assert_eq!(fake.world().groups.committed[&0], 1);
    for delivery in again {
        delivery.ack();
    }
    subscription.close().await.unwrap();
    assert_eq!(fake.world().groups.committed[&0], 10);
    assert_eq!(fake.world().groups.released(), []);
}

#[tokio::test]
async fn many_partitions_share_the_memory_and_all_are_read_to_their_ends() {
    let fake = Fake::start(1, 40).await;
    for partition in 0..40 {
        for _ in 0..5 {
            fill(&fake, partition, &["a"; 30]);
        }
    }
    let client = fake.client().await;
    let builder = subscribe(&client).memory_bytes(8_000);
    let mut subscription = builder.build().await.unwrap();
    let mut read = [0; 40];
    for owned in [3, 17, 40] {
        fake.assign((0..owned).map(|it| offer(it, 1, false)).collect());
        while read[..owned as usize].iter().sum::<u64>() < u64::from(owned) * 150 {
            let delivery = next(&mut subscription).await;
            let place = &mut read[delivery.partition as usize];
            assert_eq!(delivery.offset, *place, "each partition in order");
            *place += 1;
            delivery.ack();
        }
    }
    subscription.close().await.unwrap();
    let committed = fake.world().groups.committed.clone();
    assert!(committed.len() == 40 && committed.values().all(|at| *at == 150));
}

#[tokio::test]
async fn where_commits_are_manual_a_listener_commits_before_a_partition_is_given_up() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0, &["a"; 10]);
    fake.assign(vec![offer(0, 5, false)]);
    let client = fake.client().await;
    let handle: Arc<OnceLock<SubscriptionHandle>> = Arc::default();
    let of_listener = handle.clone();
    let listener = move |told: &Rebalance| {
        if let (Rebalance::Revoked(_), Some(handle)) = (told, of_listener.get()) {
            handle.commit_async();
        }
    };
    let builder = subscribe(&client).auto_commit(None).on_rebalance(listener);
    let mut subscription = builder.build().await.unwrap();
    handle.set(subscription.handle()).unwrap();
    for delivery in take(&mut subscription, 0..4).await {
        delivery.ack();
    }
    fake.assign(vec![offer(0, 5, true)]);
    fake.until("the release", |group| group.released() == [(0, 5)])
        .await;
    assert_eq!(fake.world().groups.commits(0), [(5, 0), (5, 4)]);
}

#[tokio::test]
async fn topics_that_do_not_exist_are_told_when_they_change_and_hold_nothing_up() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0, &["a"; 2]);
    fake.world().groups.missing = vec!["mistyped".into()];
    fake.assign(vec![offer(0, 3, false)]);
    let client = fake.client().await;
    let told = Told::default();
    let builder = subscribe(&client).on_rebalance(told.listener());
    let mut subscription = builder.build().await.unwrap();
    for delivery in take(&mut subscription, 0..2).await {
        delivery.ack();
    }
    fake.assign(vec![offer(0, 3, false)]);
    fake.world().groups.missing = vec!["mistyped".into(), "deleted".into()];
    fake.assign(vec![offer(0, 3, false)]);
    told.exactly(&["assigned 0", "missing mistyped", "missing mistyped deleted"])
        .await;
    subscription.close().await.unwrap();
}

#[tokio::test]
async fn a_partition_whose_topic_is_gone_waits_for_the_coordinator_and_takes_no_other_with_it() {
    let fake = Fake::start(1, 2).await;
    fill(&fake, 0, &["a"; 2]);
    fill(&fake, 1, &["a"; 2]);
    fake.assign(vec![offer(0, 3, false), offer(1, 3, false)]);
    fake.world().fetch_script = Box::new(|fetch| {
        let gone = fetch.partition == 0;
        gone.then_some(ErrorCode::TopicRecreated)
    });
    let client = fake.client().await;
    let told = Told::default();
    let builder = subscribe(&client).on_rebalance(told.listener());
    let mut subscription = builder.build().await.unwrap();
    for delivery in take(&mut subscription, 0..2).await {
        assert_eq!(delivery.partition, 1);
        delivery.ack();
    }
    // The next heartbeat reads it again, in case the node was only behind.
    fake.world().fetch_script = Box::new(|_| None);
    for delivery in take(&mut subscription, 0..2).await {
        assert_eq!(delivery.partition, 0);
        delivery.ack();
    }
    subscription.close().await.unwrap();
}
