//! Conditions for the commit of a record.

use std::time::Duration;

use ropewalk_client::ErrorCode;
use ropewalk_proto::v1::group_request::Kind as Ask;

use super::{fill, next, nothing_comes, subscribe, take};
use crate::fake::{Fake, React, offer, soon};

async fn with_records(records: usize) -> Fake {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0, &vec!["a"; records]);
    fake.assign(vec![offer(0, 5, false)]);
    fake
}

#[tokio::test]
async fn what_is_done_is_committed_by_itself_and_only_up_to_what_is_not() {
    let fake = with_records(10).await;
    let client = fake.client().await;
    let mut subscription = subscribe(&client).build().await.unwrap();
    let mut taken = take(&mut subscription, 0..6).await;
    taken.remove(5).ack();
    taken.remove(0).ack();
    fake.until("the first", |group| group.committed.get(&0) == Some(&1))
        .await;
    for delivery in taken {
        delivery.ack();
    }
    fake.until("the rest", |group| group.committed[&0] == 6)
        .await;
}

#[tokio::test]
async fn a_delivery_that_was_dropped_holds_the_automatic_commit_back() {
    let fake = with_records(10).await;
    let client = fake.client().await;
    let mut subscription = subscribe(&client).build().await.unwrap();
    for delivery in take(&mut subscription, 0..10).await {
        if delivery.offset != 4 {
            delivery.ack();
        }
    }
    fake.until("those before", |group| group.committed.get(&0) == Some(&4))
        .await;
    subscription.commit().await.unwrap();
    subscription.close().await.unwrap();
    assert_eq!(fake.world().groups.committed[&0], 4);
}

#[tokio::test]
async fn close_commits_what_is_done_and_leaves() {
    let fake = with_records(10).await;
    let client = fake.client().await;
    let builder = subscribe(&client).auto_commit(Some(Duration::from_secs(3_600)));
    let mut subscription = builder.build().await.unwrap();
    let mut taken = take(&mut subscription, 0..3).await;
    taken.remove(0).ack();
    subscription.close().await.unwrap();
    let world = fake.world();
    assert_eq!(world.groups.commits(0), [(5, 0), (5, 1)]);
    assert!(matches!(world.groups.said.last(), Some((_, Ask::Leave(_)))));
}

#[tokio::test]
async fn a_static_member_leaves_only_when_it_is_told_to() {
    for leave in [false, true] {
        let fake = with_records(1).await;
        let client = fake.client().await;
        let builder = subscribe(&client).instance_id("first");
        let mut subscription = builder.build().await.unwrap();
        next(&mut subscription).await.ack();
        if leave {
            subscription.close_and_leave().await.unwrap();
        } else {
            subscription.close().await.unwrap();
        }
        let world = fake.world();
        assert_eq!(world.groups.committed[&0], 1);
        assert_eq!(world.groups.has_left(), leave);
        let (_, Ask::Join(join)) = &world.groups.said[0] else {
            panic!("it joins first");
        };
        assert_eq!(join.instance_id, "first");
    }
}

#[tokio::test]
async fn a_refused_position_is_the_error_of_the_commit() {
    let fake = with_records(10).await;
    let client = fake.client().await;
    let builder = subscribe(&client).auto_commit(None);
    let mut subscription = builder.build().await.unwrap();
    next(&mut subscription).await.ack();
    let refuse = |ask: &Ask| match ask {
        Ask::Commit(_) => React::RefuseEach(ErrorCode::NotOwner),
        _ => React::Obey,
    };
    fake.world().groups.script = Box::new(refuse);
    let error = soon(subscription.commit()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotOwner), "{error}");
    fake.world().groups.script = Box::new(|ask| match ask {
        Ask::Commit(_) => React::Refuse(ErrorCode::Overloaded),
        _ => React::Obey,
    });
    let error = soon(subscription.commit()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Overloaded), "{error}");
    fake.world().groups.script = Box::new(|_| React::Obey);
    soon(subscription.commit()).await.unwrap();
    assert_eq!(fake.world().groups.committed[&0], 1);
}

#[tokio::test]
async fn manual_commits_come_only_when_they_are_asked_for() {
    let fake = with_records(10).await;
    let client = fake.client().await;
    let builder = subscribe(&client).auto_commit(None);
    let mut subscription = builder.build().await.unwrap();
    for delivery in take(&mut subscription, 0..4).await {
        delivery.ack();
    }
    subscription.commit_async();
    fake.until("what was asked for", |group| group.commits(0).len() == 2)
        .await;
    next(&mut subscription).await.ack();
    subscription.close().await.unwrap();
    assert_eq!(fake.world().groups.commits(0), [(5, 0), (5, 4)]);
}

#[tokio::test]
async fn no_more_records_are_out_than_the_bound_and_one_that_is_done_makes_room() {
    let fake = with_records(10).await;
    let client = fake.client().await;
    let builder = subscribe(&client).max_in_flight(3);
    let mut subscription = builder.build().await.unwrap();
    let mut taken = take(&mut subscription, 0..3).await;
    assert!(nothing_comes(&mut subscription));
    let (fourth, ()) = tokio::join!(next(&mut subscription), async {
        tokio::task::yield_now().await;
        taken.remove(1).ack();
    });
    assert_eq!(fourth.offset, 3);
    assert!(nothing_comes(&mut subscription));
}
