//! Consumer groups at the level of the wire protocol, with valid and invalid requests.

use std::time::Duration;

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::group_request::Kind as Asked;
use ropewalk_proto::v1::group_response::Kind as Told;
use tokio::time::Instant;

use crate::support::member::*;

fn code_of<T: std::fmt::Debug>(answer: Result<tonic::Response<T>, tonic::Status>) -> ErrorCode {
    WireError::from(&answer.expect_err("refused")).code
}

#[tokio::test]
async fn members_share_partitions_and_pass_them_on_with_their_positions() {
    let mut node = cluster().await;
    for partition in 0..PARTITIONS {
        write(&mut node, partition).await;
    }
    let mut a = Member::join(&node, join_as("a")).await;
    a.owns(4).await;
    let all = a.assignment.partitions.clone();
    assert!(all.iter().all(|one| one.committed.is_none()));
    for one in &all {
        assert_eq!(a.commit(one, 1).await, Ok(()));
    }
    let mut b = Member::join(&node, join_as("b")).await;
    assert_eq!(b.assignment.partitions, []);
    while !a.assignment.partitions.iter().any(|one| one.revoked) {
        a.ask(Asked::Heartbeat(v1::Heartbeat {})).await;
    }
    a.release_revoked().await;
    b.owns(2).await;
    assert!(
        b.assignment
            .partitions
            .iter()
            .all(|one| one.committed == Some(1))
    );
    a.owns(2).await;
    assert_eq!(
        a.ask(Asked::Leave(v1::Leave {})).await,
        Told::Done(v1::GroupDone {})
    );
    b.owns(4).await;
    node.still_serves().await;
}

#[tokio::test]
async fn a_silent_member_is_out_and_its_commits_count_no_more() {
    let mut node = cluster().await;
    write(&mut node, 0).await;
    let mut frozen = Member::join(&node, join_as("frozen")).await;
    frozen.owns(4).await;
    let had = frozen.assignment.partitions[0].clone();
    let began = Instant::now();
    assert_eq!(frozen.ends().await, ErrorCode::UnknownMember);
    assert!(began.elapsed() >= Duration::from_millis(u64::from(SESSION_MS) / 2));
    let mut heir = Member::join(&node, join_as("heir")).await;
    heir.owns(4).await;
    let stale = v1::Assigned {
        epoch: had.epoch,
        ..heir.assignment.partitions[0].clone()
    };
    assert_ne!(stale.epoch, heir.assignment.partitions[0].epoch);
    assert_eq!(heir.commit(&stale, 1).await, Err(ErrorCode::NotOwner));
    node.still_serves().await;
}

#[tokio::test]
async fn a_member_whose_connection_broke_comes_back_to_what_it_had() {
    let node = cluster().await;
    let mut before = Member::join(&node, join_as("a")).await;
    before.owns(4).await;
    let had = before.assignment.clone();
    drop(before);
    let mut after = Member::join(&node, join_as("a")).await;
    assert_eq!(after.assignment, had);
    // Longer than the time for a disconnected member to return: the end of the first session must not count.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(
            after.ask(Asked::Heartbeat(v1::Heartbeat {})).await,
            Told::Done(v1::GroupDone {})
        );
    }
    drop(after);
    let mut heir = Member::join(&node, join_as("heir")).await;
    heir.owns(4).await;
    node.still_serves().await;
}

#[tokio::test]
async fn a_member_that_is_back_loses_nothing_when_its_first_connection_ends_late() {
    let node = cluster().await;
    let mut before = Member::join(&node, join_as("a")).await;
    before.owns(4).await;
    let mut after = Member::join(&node, join_as("a")).await;
    drop(before);
    // Longer than the time for a disconnected member to return, and shorter than the session timeout.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(
        after.ask(Asked::Heartbeat(v1::Heartbeat {})).await,
        Told::Done(v1::GroupDone {})
    );
    assert_eq!(after.assignment.partitions.len(), 4);
    node.still_serves().await;
}

#[tokio::test]
async fn a_static_member_whose_connection_broke_has_its_whole_session_to_come_back() {
    let node = cluster().await;
    let named = |id: &str| v1::Join {
        instance_id: format!("till-{id}"),
        session_ms: 1_500,
        ..join_as(id)
    };
    let mut first = Member::join(&node, named("1")).await;
    first.owns(4).await;
    let had = first.assignment.clone();
    drop(first);
    // Longer than the time for any other disconnected member to return.
    tokio::time::sleep(Duration::from_millis(800)).await;
    let again = v1::Join {
        again: true,
        ..named("1")
    };
    let back = Member::try_join(&node, again).await.expect("it is in");
    assert_eq!(back.assignment, had);
    node.still_serves().await;
}

#[tokio::test]
async fn a_static_member_hands_over_to_its_next_life_and_is_told() {
    let node = cluster().await;
    let named = |id: &str| v1::Join {
        instance_id: "till-1".to_owned(),
        ..join_as(id)
    };
    let mut first = Member::join(&node, named("first")).await;
    first.owns(4).await;
    let mut second = Member::join(&node, named("second")).await;
    second.owns(4).await;
    assert_eq!(first.ends().await, ErrorCode::NotOwner);
    let again = v1::Join {
        again: true,
        ..named("first")
    };
    let refused = Member::try_join(&node, again).await.err().expect("refused");
    assert_eq!(refused.code, ErrorCode::NotOwner);
    let never = v1::Join {
        again: true,
        ..join_as("never")
    };
    let refused = Member::try_join(&node, never).await.err().expect("refused");
    assert_eq!(refused.code, ErrorCode::UnknownMember);
    node.still_serves().await;
}

#[tokio::test]
async fn a_member_that_keeps_what_it_must_give_up_loses_it() {
    let node = cluster().await;
    let slow = v1::Join {
        rebalance_ms: 300,
        session_ms: 20_000,
        ..join_as("slow")
    };
    let mut slow = Member::join(&node, slow).await;
    slow.owns(4).await;
    let had = slow.assignment.partitions.clone();
    let asked = Instant::now();
    let mut other = Member::join(
        &node,
        v1::Join {
            session_ms: 20_000,
            ..join_as("other")
        },
    )
    .await;
    other.owns(2).await;
    assert!(
        asked.elapsed() >= Duration::from_millis(300),
        "it has its time"
    );
    let lost = &other.assignment.partitions[0];
    let lost = had
        .iter()
        .find(|one| one.partition == lost.partition)
        .expect("it was the first member's");
    assert_eq!(slow.commit(lost, 0).await, Err(ErrorCode::NotOwner));
    node.still_serves().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_name() {
    let mut node = cluster().await;
    let mut a = Member::join(&node, join_as("a")).await;
    a.owns(4).await;
    let own = a.assignment.partitions[0].clone();
    assert_eq!(a.commit(&own, 1).await, Err(ErrorCode::OffsetOutOfRange));
    write(&mut node, own.partition).await;
    assert_eq!(a.commit(&own, 1).await, Ok(()));
    assert_eq!(a.commit(&own, 2).await, Err(ErrorCode::OffsetOutOfRange));
    let other_topic = v1::Assigned {
        topic_id: own.topic_id + 7,
        ..own.clone()
    };
    assert_eq!(a.commit(&other_topic, 0).await, Err(ErrorCode::NotOwner));
    let other_epoch = v1::Assigned {
        epoch: own.epoch + 1,
        ..own.clone()
    };
    assert_eq!(a.commit(&other_epoch, 1).await, Err(ErrorCode::NotOwner));
    let again = a.ask(Asked::Join(join_as("a"))).await;
    assert!(matches!(again, Told::Error(error) if error.code == ErrorCode::InvalidRequest as u32));

    let delete = v1::DeleteGroupRequest {
        group: GROUP.to_owned(),
    };
    assert_eq!(
        code_of(node.client.delete_group(delete.clone()).await),
        ErrorCode::GroupInUse
    );
    let seek = v1::SeekGroupRequest {
        group: GROUP.to_owned(),
        topic: READ.to_owned(),
        position: Some(v1::seek_group_request::Position::Beginning(true)),
        ..v1::SeekGroupRequest::default()
    };
    assert_eq!(
        code_of(node.client.seek_group(seek.clone()).await),
        ErrorCode::GroupInUse
    );

    let bad = [
        (
            v1::Join {
                group: String::new(),
                ..join_as("b")
            },
            ErrorCode::InvalidRequest,
        ),
        (
            v1::Join {
                member_id: "a b".to_owned(),
                ..join_as("b")
            },
            ErrorCode::InvalidRequest,
        ),
        (
            v1::Join {
                topics: Vec::new(),
                ..join_as("b")
            },
            ErrorCode::InvalidRequest,
        ),
        (
            v1::Join {
                pattern: "(".to_owned(),
                ..join_as("b")
            },
            ErrorCode::InvalidRequest,
        ),
        (
            v1::Join {
                pattern: "(a{1000}){1000}".to_owned(),
                ..join_as("b")
            },
            ErrorCode::InvalidRequest,
        ),
        (
            v1::Join {
                session_ms: 1,
                ..join_as("b")
            },
            ErrorCode::InvalidRequest,
        ),
        (
            v1::Join {
                topics: vec!["no where".to_owned()],
                ..join_as("b")
            },
            ErrorCode::InvalidRequest,
        ),
        (
            v1::Join {
                topics: vec!["_groups".to_owned()],
                ..join_as("b")
            },
            ErrorCode::UnknownTopic,
        ),
    ];
    for (join, expected) in bad {
        let error = Member::try_join(&node, join).await.err().expect("refused");
        assert_eq!(error.code, expected, "{}", error.message);
    }

    a.ask(Asked::Leave(v1::Leave {})).await;
    let beyond = v1::SeekGroupRequest {
        position: Some(v1::seek_group_request::Position::Offset(99)),
        ..seek.clone()
    };
    assert_eq!(
        code_of(node.client.seek_group(beyond).await),
        ErrorCode::OffsetOutOfRange
    );
    let moved = node
        .client
        .seek_group(seek)
        .await
        .expect("nobody is in it")
        .into_inner();
    assert_eq!(moved.positions.len(), PARTITIONS as usize);
    node.client
        .delete_group(delete.clone())
        .await
        .expect("nobody is in it");
    assert_eq!(
        code_of(node.client.delete_group(delete).await),
        ErrorCode::UnknownGroup
    );
    assert_eq!(
        code(node.publish("_groups", b"x").await),
        ErrorCode::InvalidTopicName
    );
    node.still_serves().await;
}

fn code(error: Result<u64, (ErrorCode, String)>) -> ErrorCode {
    error.expect_err("refused").0
}

#[tokio::test]
async fn groups_past_the_bound_are_refused_and_the_others_stay() {
    let mut node = cluster().await;
    let mut refused = 0;
    let named = |number: usize| v1::Join {
        group: format!("group-{number}"),
        ..join_as("a")
    };
    let mut members = vec![Member::join(&node, named(0)).await];
    for number in 1..100 {
        match Member::try_join(&node, named(number)).await {
            Ok(member) => members.push(member),
            Err(error) if error.code == ErrorCode::Overloaded => refused += 1,
            Err(_) => members.push(Member::join(&node, named(number)).await),
        }
    }
    assert_eq!(refused, 20, "two coordinators take 40 each");
    let listed = node
        .client
        .list_groups(v1::ListGroupsRequest::default())
        .await;
    assert_eq!(listed.expect("a list").into_inner().groups.len(), 80);
    node.still_serves().await;
}

#[tokio::test]
async fn members_past_the_bound_are_refused_and_the_others_stay() {
    let node = cluster().await;
    let patient = |id: &str| v1::Join {
        session_ms: 20_000,
        ..join_as(id)
    };
    let mut first = Member::join(&node, patient("a")).await;
    for id in ["b", "c"] {
        Member::join(&node, patient(id)).await;
    }
    let refused = Member::try_join(&node, patient("d")).await.err();
    assert_eq!(refused.expect("refused").code, ErrorCode::Overloaded);
    // A member may rejoin.
    Member::join(&node, patient("a")).await;
    first.ask(Asked::Leave(v1::Leave {})).await;
    Member::join(&node, patient("d")).await;
    node.still_serves().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_nothing_of_it_kept() {
    let mut node = cluster().await;
    write(&mut node, 0).await;
    let mut a = Member::join(&node, join_as("a")).await;
    a.owns(4).await;
    let own = &a.assignment.partitions[0];
    let position = v1::GroupPosition {
        topic_id: own.topic_id,
        partition: own.partition,
        epoch: own.epoch,
        offset: 1,
        note: "n".repeat(4_097),
    };
    let noted = v1::Commit {
        positions: vec![position.clone()],
    };
    let Told::Committed(committed) = a.ask(Asked::Commit(noted)).await else {
        panic!("each position is answered by itself");
    };
    let refused = committed.refused[0].error.as_ref().expect("an error");
    assert_eq!(refused.code, ErrorCode::InvalidRequest as u32);
    let short = v1::GroupPosition {
        note: String::new(),
        ..position
    };
    let many = v1::Commit {
        positions: vec![short; 10_001],
    };
    let refused = a.ask(Asked::Commit(many)).await;
    assert!(
        matches!(refused, Told::Error(error) if error.code == ErrorCode::InvalidRequest as u32)
    );
    let described = v1::DescribeGroupRequest {
        group: GROUP.to_owned(),
    };
    let described = node.client.describe_group(described).await;
    let described = described.expect("a group").into_inner();
    assert!(
        described
            .partitions
            .iter()
            .all(|one| one.committed.is_none())
    );
    for join in [
        v1::Join {
            topics: vec![READ.to_owned(); 1_001],
            ..join_as("b")
        },
        v1::Join {
            pattern: "o".repeat(4_097),
            ..join_as("b")
        },
        v1::Join {
            client: "c".repeat(250),
            ..join_as("b")
        },
        v1::Join {
            group: "g".repeat(250),
            ..join_as("b")
        },
    ] {
        let error = Member::try_join(&node, join).await.err().expect("refused");
        assert_eq!(error.code, ErrorCode::InvalidRequest, "{}", error.message);
    }
    node.still_serves().await;
}

#[tokio::test]
async fn lag_is_counted_in_records_and_in_time_from_the_log() {
    let mut node = cluster().await;
    for _ in 0..3 {
        write(&mut node, 1).await;
    }
    let mut a = Member::join(&node, join_as("a")).await;
    a.owns(4).await;
    let own = a.assignment.partitions[1].clone();
    a.commit(&own, 1).await.expect("its own");
    let waited = Instant::now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let lag = v1::GroupLagRequest {
        group: GROUP.to_owned(),
    };
    let answer = node
        .client
        .group_lag(lag.clone())
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(answer.partitions.len(), PARTITIONS as usize);
    let behind = &answer.partitions[1];
    assert_eq!(
        (behind.committed, behind.high_watermark, behind.lag_records),
        (Some(1), 3, 2)
    );
    assert_eq!(behind.member_id, "a");
    let waited_ms = i64::try_from(waited.elapsed().as_millis()).expect("a short time");
    assert!(
        (300..waited_ms + 5_000).contains(&behind.lag_ms),
        "{} ms",
        behind.lag_ms
    );
    a.commit(&own, 3).await.expect("its own");
    let answer = node
        .client
        .group_lag(lag)
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(
        (
            answer.partitions[1].lag_records,
            answer.partitions[1].lag_ms
        ),
        (0, 0)
    );
    node.still_serves().await;
}
