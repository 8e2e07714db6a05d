//! Coordinators that move, break streams, fall silent, or forget members.

use std::time::Duration;

use futures_util::StreamExt;
use ropewalk_client::{ErrorCode, ErrorKind};
use ropewalk_proto::v1::group_request::Kind as Ask;

use super::{Told, fill, next, nothing_comes, subscribe, take};
use crate::fake::{Fake, GROUP, React, TOPIC, offer, soon};

async fn with_records(nodes: u64) -> Fake {
    let fake = Fake::start(nodes, 1).await;
    fill(&fake, 0, &["a"; 10]);
    fake.assign(vec![offer(0, 5, false)]);
    fake
}

#[tokio::test]
async fn a_member_finds_its_coordinator_and_follows_it() {
    let fake = with_records(3).await;
    fake.world().groups.coordinator = 3;
    let told = Told::default();
    let client = fake.client().await;
    let builder = subscribe(&client).on_rebalance(told.listener());
    let mut subscription = builder.build().await.unwrap();
    let mut taken = take(&mut subscription, 0..2).await;
    fake.world().groups.coordinator = 2;
    fake.expel(ErrorCode::NotLeader);
    told.exactly(&["assigned 0", "disconnected", "reconnected"])
        .await;
    taken.remove(0).ack();
    subscription.commit().await.unwrap();
    take(&mut subscription, 2..10).await.pop().unwrap().ack();
    let world = fake.world();
    assert_eq!(world.groups.committed[&0], 1);
    let joins = world.groups.joins();
    assert!(joins.iter().all(|id| *id == subscription.member_id()));
}

#[tokio::test]
async fn a_broken_coordinator_stream_rejoins_under_the_same_id_and_goes_on() {
    let fake = with_records(1).await;
    let told = Told::default();
    let client = fake.client().await;
    let builder = subscribe(&client).on_rebalance(told.listener());
    let mut subscription = builder.build().await.unwrap();
    let taken = take(&mut subscription, 0..3).await;
    fake.until("the start", |group| group.committed.contains_key(&0))
        .await;
    fake.break_sessions();
    told.exactly(&["assigned 0", "disconnected", "reconnected"])
        .await;
    for delivery in taken {
        delivery.ack();
    }
    take(&mut subscription, 3..10)
        .await
        .into_iter()
        .for_each(|it| it.ack());
    subscription.close().await.unwrap();
    let world = fake.world();
    assert_eq!(world.groups.committed[&0], 10);
    let joins = world.groups.joins();
    assert!(joins.len() == 2 && joins[0] == joins[1]);
    assert!(!world.groups.released().contains(&(0, 5)));
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_made_again_before_it_is_reported() {
    let fake = with_records(1).await;
    let client = fake.client().await;
    let builder = subscribe(&client).auto_commit(None);
    let mut subscription = builder.build().await.unwrap();
    next(&mut subscription).await.ack();
    let mut breaks = 1;
    fake.world().groups.script = Box::new(move |ask| match ask {
        Ask::Commit(_) if breaks > 0 => {
            breaks -= 1;
            React::ObeyAndBreak
        }
        _ => React::Obey,
    });
    soon(subscription.commit()).await.unwrap();
    let commits = fake.world().groups.commits(0);
    assert_eq!(commits, [(5, 0), (5, 1), (5, 1)]);
}

#[tokio::test]
async fn a_close_whose_last_commit_is_lost_with_the_stream_joins_again_to_make_it() {
    let fake = with_records(1).await;
    let client = fake.client().await;
    let builder = subscribe(&client).auto_commit(Some(Duration::from_secs(3_600)));
    let mut subscription = builder.build().await.unwrap();
    next(&mut subscription).await.ack();
    let mut breaks = 1;
    fake.world().groups.script = Box::new(move |ask| match ask {
        Ask::Commit(_) if breaks > 0 => {
            breaks -= 1;
            React::Break
        }
        _ => React::Obey,
    });
    soon(subscription.close()).await.unwrap();
    let world = fake.world();
    assert_eq!(world.groups.committed[&0], 1);
    assert!(world.groups.has_left());
    assert_eq!(world.groups.joins().len(), 2);
}

#[tokio::test]
async fn a_member_that_is_put_out_while_it_closes_says_that_its_last_commit_failed() {
    let fake = with_records(1).await;
    let client = fake.client().await;
    let builder = subscribe(&client).auto_commit(Some(Duration::from_secs(3_600)));
    let mut subscription = builder.build().await.unwrap();
    next(&mut subscription).await.ack();
    fake.world().groups.script = Box::new(|ask| match ask {
        Ask::Commit(_) => React::Refuse(ErrorCode::UnknownMember),
        _ => React::Obey,
    });
    let error = soon(subscription.close()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownMember), "{error}");
    assert_eq!(fake.world().groups.joins().len(), 1);
}

#[tokio::test]
async fn a_release_whose_answer_is_lost_is_made_again() {
    let fake = with_records(1).await;
    let client = fake.client().await;
    let mut subscription = subscribe(&client).build().await.unwrap();
    next(&mut subscription).await.ack();
    fake.world().groups.script = Box::new(|ask| match ask {
        Ask::Release(_) => React::Ignore,
        _ => React::Obey,
    });
    fake.assign(vec![offer(0, 5, true)]);
    fake.until("the release", |group| group.released().len() == 1)
        .await;
    fake.world().groups.script = Box::new(|_| React::Obey);
    fake.break_sessions();
    fake.until("it again", |group| group.released().len() == 2)
        .await;
    fake.until("the end", |group| group.owned.is_empty()).await;
    subscription.close().await.unwrap();
    assert_eq!(fake.world().groups.committed[&0], 1);
}

#[tokio::test]
async fn an_unknown_member_has_lost_everything_and_joins_under_a_new_id() {
    let fake = with_records(1).await;
    let told = Told::default();
    let client = fake.client().await;
    let builder = subscribe(&client).on_rebalance(told.listener());
    let mut subscription = builder.build().await.unwrap();
    let taken = take(&mut subscription, 0..3).await;
    fake.until("the start", |group| group.committed.contains_key(&0))
        .await;
    fake.world().groups.owned = vec![offer(0, 6, false)];
    fake.expel(ErrorCode::UnknownMember);
    told.exactly(&["assigned 0", "lost 0", "assigned 0"]).await;
    for delivery in taken {
        delivery.ack();
    }
    take(&mut subscription, 0..1).await.pop().unwrap().ack();
    subscription.commit().await.unwrap();
    let world = fake.world();
    let joins = world.groups.joins();
    assert!(joins.len() == 2 && joins[0] != joins[1]);
    assert_eq!(subscription.member_id(), joins[1]);
    assert_eq!(world.groups.commits(0), [(5, 0), (6, 1)]);
}

#[tokio::test]
async fn a_static_member_that_was_replaced_ends() {
    let fake = with_records(1).await;
    let client = fake.client().await;
    let builder = subscribe(&client).instance_id("first");
    let mut subscription = builder.build().await.unwrap();
    fake.expel(ErrorCode::NotOwner);
    let error = loop {
        if let Err(error) = soon(subscription.next()).await.unwrap() {
            break error;
        }
    };
    assert_eq!(error.code(), Some(ErrorCode::NotOwner), "{error}");
    assert!(soon(subscription.next()).await.is_none());
    assert_eq!(subscription.commit().await.unwrap_err(), error);
    assert_eq!(subscription.close().await.unwrap_err(), error);
    assert_eq!(fake.world().groups.joins().len(), 1);
}

#[tokio::test]
async fn a_member_that_is_not_heard_stops_when_its_session_is_over_by_its_own_clock() {
    let fake = with_records(1).await;
    let told = Told::default();
    let client = fake.client().await;
    let builder = subscribe(&client)
        .session_timeout(Duration::from_millis(400))
        .on_rebalance(told.listener());
    let mut subscription = builder.build().await.unwrap();
    take(&mut subscription, 0..1).await.pop().unwrap().ack();
    fake.world().groups.script = Box::new(|_| React::Ignore);
    told.exactly(&["assigned 0", "disconnected"]).await;
    assert!(nothing_comes(&mut subscription), "another may have it");
    fake.world().groups.script = Box::new(|_| React::Obey);
    let next = next(&mut subscription).await;
    assert_eq!(next.offset, 1);
    told.exactly(&["assigned 0", "disconnected", "reconnected"])
        .await;
}

#[tokio::test]
async fn a_member_that_asks_for_no_session_has_what_the_coordinator_gives() {
    let fake = with_records(1).await;
    fake.world().groups.session_ms = 400;
    let told = Told::default();
    let client = fake.client().await;
    let builder = client.subscribe(GROUP).topics([TOPIC]);
    let mut subscription = builder.on_rebalance(told.listener()).build().await.unwrap();
    let asked = fake
        .world()
        .groups
        .said
        .iter()
        .find_map(|(_, ask)| match ask {
            Ask::Join(join) => Some(join.session_ms),
            _ => None,
        });
    assert_eq!(asked, Some(0), "the node's default");
    take(&mut subscription, 0..1).await.pop().unwrap().ack();
    fake.world().groups.script = Box::new(|_| React::Ignore);
    // It waits for an answer this long, which is no longer than the session.
    told.exactly(&["assigned 0", "disconnected"]).await;
    assert!(nothing_comes(&mut subscription), "another may have it");
}

#[tokio::test]
async fn without_a_coordinator_for_three_sessions_the_stream_says_so_and_ends() {
    let fake = with_records(2).await;
    let client = fake.client().await;
    let builder = subscribe(&client).session_timeout(Duration::from_millis(100));
    let mut subscription = builder.clone().build().await.unwrap();
    take(&mut subscription, 0..10)
        .await
        .into_iter()
        .for_each(|it| it.ack());
    fake.world().groups.coordinator = 0;
    fake.break_sessions();
    let error = soon(subscription.next()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NoLeader), "{error}");
    assert!(soon(subscription.next()).await.is_none());
    let error = soon(builder.build()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NoLeader), "{error}");
}

#[tokio::test]
async fn a_refusal_for_want_of_room_is_told_at_once_and_named_in_the_end_rather_than_a_timeout() {
    let fake = with_records(1).await;
    let client = fake.client().await;
    let told = Told::default();
    let builder = subscribe(&client).session_timeout(Duration::from_millis(200));
    let mut refusals = 2;
    fake.world().groups.script = Box::new(move |ask| match ask {
        Ask::Join(_) if refusals > 0 => {
            refusals -= 1;
            React::Refuse(ErrorCode::Overloaded)
        }
        _ => React::Ignore,
    });
    let builder = builder.on_rebalance(told.listener());
    let error = soon(builder.build()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Overloaded), "{error}");
    let first = "no coordinator of group \"watchers\" took the member";
    assert!(error.to_string().contains(first), "{error}");
    told.exactly(&["refused: the script says so"]).await;
}

#[tokio::test]
async fn a_member_that_was_refused_for_want_of_room_joins_once_there_is_some() {
    let fake = with_records(1).await;
    let client = fake.client().await;
    let told = Told::default();
    let mut refusals = 3;
    fake.world().groups.script = Box::new(move |ask| match ask {
        Ask::Join(_) if refusals > 0 => {
            refusals -= 1;
            React::Refuse(ErrorCode::Overloaded)
        }
        _ => React::Obey,
    });
    let builder = subscribe(&client).on_rebalance(told.listener());
    let subscription = soon(builder.build()).await.unwrap();
    told.exactly(&["refused: the script says so", "assigned 0"])
        .await;
    subscription.close().await.unwrap();
}

#[tokio::test]
async fn a_member_that_never_polls_leaves_with_an_error() {
    let fake = with_records(1).await;
    let client = fake.client().await;
    let builder = subscribe(&client).max_poll_interval(Duration::from_millis(60));
    let mut subscription = builder.build().await.unwrap();
    let taken = take(&mut subscription, 0..2).await;
    taken.into_iter().for_each(|delivery| delivery.ack());
    fake.until("the leave", |group| group.has_left()).await;
    let error = soon(subscription.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeftGroup, "{error}");
    assert!(error.to_string().contains("max_poll_interval"), "{error}");
    assert!(soon(subscription.next()).await.is_none());
    assert_eq!(fake.world().groups.committed[&0], 2);
}

#[tokio::test]
async fn a_member_with_nothing_to_take_may_wait_for_ever() {
    let fake = with_records(1).await;
    let client = fake.client().await;
    let builder = subscribe(&client).max_poll_interval(Duration::from_millis(60));
    let mut subscription = builder.build().await.unwrap();
    let taken = take(&mut subscription, 0..10).await;
    assert!(nothing_comes(&mut subscription));
    // The handlers are slow; heartbeats show that time passes.
    fake.heartbeats(20).await;
    taken.into_iter().for_each(|delivery| delivery.ack());
    subscription.close().await.unwrap();
    assert_eq!(fake.world().groups.committed[&0], 10);
}

#[tokio::test]
async fn what_can_never_work_is_told_by_the_build() {
    let fake = with_records(1).await;
    let client = fake.client().await;
    fake.world().groups.script = Box::new(|_| React::Refuse(ErrorCode::InvalidRequest));
    let error = soon(subscribe(&client).build()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::InvalidRequest), "{error}");
    // Another topic could be a new one, but that would show soon.
    fake.world().groups.script = Box::new(|_| React::Refuse(ErrorCode::UnknownTopic));
    let error = soon(subscribe(&client).build()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic), "{error}");
    for builder in [
        client.subscribe("g"),
        client.subscribe("").topics([TOPIC]),
        subscribe(&client).session_timeout(Duration::ZERO),
        subscribe(&client).rebalance_timeout(Duration::MAX),
        subscribe(&client).memory_bytes(0),
    ] {
        let error = builder.build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}

#[tokio::test]
async fn a_listener_that_panics_ends_the_stream_with_an_error() {
    let fake = with_records(1).await;
    let client = fake.client().await;
    let builder = subscribe(&client).on_rebalance(|_| panic!("on purpose"));
    let error = soon(builder.build()).await.unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
}
