//! Pauses, seeks, lag, and errors of partitions.

use std::time::Duration;

use futures_util::StreamExt;
use ropewalk_client::{ErrorCode, ErrorKind, Offset, OnTrimmed};

use super::{Told, fill, next, nothing_comes, subscribe, take};
use crate::fake::{Fake, TOPIC, offer, soon};

async fn two_partitions() -> Fake {
    let fake = Fake::start(1, 2).await;
    for partition in 0..2 {
        fill(&fake, partition, &["a"; 10]);
    }
    fake.assign(vec![offer(0, 5, false), offer(1, 5, false)]);
    fake
}

#[tokio::test]
async fn a_paused_partition_is_kept_and_goes_on_where_it_was() {
    let fake = two_partitions().await;
    let client = fake.client().await;
    let mut subscription = subscribe(&client).build().await.unwrap();
    subscription.pause(TOPIC, 0).unwrap();
    let mut others = take(&mut subscription, 0..10).await;
    assert!(others.iter().all(|delivery| delivery.partition == 1));
    assert!(nothing_comes(&mut subscription));
    subscription.resume(TOPIC, 0).unwrap();
    others = take(&mut subscription, 0..10).await;
    assert!(others.iter().all(|delivery| delivery.partition == 0));
    let error = subscription.pause(TOPIC, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[tokio::test]
async fn a_seek_moves_what_comes_next_and_what_is_committed() {
    let fake = two_partitions().await;
    let client = fake.client().await;
    let mut subscription = subscribe(&client).auto_commit(None).build().await.unwrap();
    subscription.pause(TOPIC, 1).unwrap();
    let mut taken = take(&mut subscription, 0..10).await;
    taken.drain(..5).for_each(|delivery| delivery.ack());
    subscription.commit().await.unwrap();
    subscription.seek(TOPIC, 0, Offset::At(2)).await.unwrap();
    taken.drain(..).for_each(|delivery| delivery.ack());
    subscription.commit().await.unwrap();
    let mut again = take(&mut subscription, 2..10).await;
    again.drain(..2).for_each(|delivery| delivery.ack());
    subscription.commit().await.unwrap();
    let mut commits = fake.world().groups.commits(0);
    assert_eq!(commits.split_off(1), [(5, 5), (5, 2), (5, 4)]);
    subscription.seek(TOPIC, 0, Offset::End).await.unwrap();
    assert!(nothing_comes(&mut subscription));
    let error = subscription.seek(TOPIC, 7, Offset::End).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[tokio::test]
async fn what_was_out_before_a_seek_counts_no_more_once_it_is_out_again() {
    let fake = two_partitions().await;
    let client = fake.client().await;
    let mut subscription = subscribe(&client).auto_commit(None).build().await.unwrap();
    subscription.pause(TOPIC, 1).unwrap();
    let before = take(&mut subscription, 0..4).await;
    subscription.seek(TOPIC, 0, Offset::At(0)).await.unwrap();
    let mut again = take(&mut subscription, 0..4).await;
    before.into_iter().for_each(|delivery| delivery.ack());
    subscription.commit().await.unwrap();
    assert_eq!(fake.world().groups.committed[&0], 0);
    again.drain(..3).for_each(|delivery| delivery.ack());
    subscription.commit().await.unwrap();
    assert_eq!(fake.world().groups.committed[&0], 3);
}

#[tokio::test]
async fn lag_is_of_this_members_partitions() {
    let fake = two_partitions().await;
    fake.assign(vec![offer(1, 5, false)]);
    let client = fake.client().await;
    let mut subscription = subscribe(&client).build().await.unwrap();
    for delivery in take(&mut subscription, 0..4).await {
        delivery.ack();
    }
    subscription.commit().await.unwrap();
    let lags = subscription.lag().await.unwrap();
    assert_eq!(lags.len(), 1);
    assert_eq!((lags[0].partition, lags[0].lag_records), (1, 6));
}

#[tokio::test]
async fn a_partition_that_cannot_be_read_is_told_and_tried_again() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0, &["a"; 3]);
    fake.assign(vec![offer(0, 5, false)]);
    fake.world().fetch_script = Box::new(|_| Some(ErrorCode::NoLeader));
    let told = Told::default();
    let client = fake.client().await;
    let builder = subscribe(&client)
        .unavailable_timeout(Duration::from_millis(50))
        .on_rebalance(told.listener());
    let mut subscription = builder.build().await.unwrap();
    let (first, ()) = tokio::join!(next(&mut subscription), async {
        told.exactly(&["assigned 0", "unreadable 0"]).await;
        fake.world().fetch_script = Box::new(|_| None);
    });
    assert_eq!(first.offset, 0);
}

#[tokio::test]
async fn a_position_that_was_trimmed_ends_the_stream_or_is_skipped_as_it_was_told() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0, &["a"; 10]);
    fill(&fake, 0, &["a"; 10]);
    {
        let mut world = fake.world();
        world.logs[0].start = 10;
        world.logs[0].batches.remove(0);
        world.groups.committed.insert(0, 4);
    }
    fake.assign(vec![offer(0, 5, false)]);
    let client = fake.client().await;
    let builder = subscribe(&client);
    let mut subscription = builder.clone().build().await.unwrap();
    let error = soon(subscription.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Trimmed, "{error}");
    assert!(soon(subscription.next()).await.is_none());
    // The member still works, and can commit and leave.
    subscription.close().await.unwrap();
    assert!(fake.world().groups.has_left());
    assert_eq!(fake.world().groups.committed[&0], 4);

    let builder = builder.on_trimmed(OnTrimmed::SkipToBeginning);
    let mut subscription = builder.build().await.unwrap();
    next(&mut subscription).await.ack();
    subscription.close().await.unwrap();
    assert_eq!(fake.world().groups.committed[&0], 11);
}

#[tokio::test]
async fn a_partition_that_was_trimmed_to_its_end_is_committed_there() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0, &["a"; 10]);
    {
        let mut world = fake.world();
        world.logs[0].start = 10;
        world.logs[0].batches.clear();
        world.groups.committed.insert(0, 4);
    }
    fake.assign(vec![offer(0, 5, false)]);
    let client = fake.client().await;
    let builder = subscribe(&client).on_trimmed(OnTrimmed::SkipToBeginning);
    let mut subscription = builder.build().await.unwrap();
    // Other partitions may wait for it: after a topic has grown, a member gets the new partitions only once
    // it has read the old ones.
    tokio::select! {
        next = subscription.next() => panic!("there is nothing to read, but {next:?}"),
        () = fake.until("the end", |group| group.committed[&0] == 10) => {}
    }
    subscription.close().await.unwrap();
}
