//! Topics that are created, grow, and are deleted and recreated while a consumer group reads them. The tests
//! use the wire protocol of its members.

use std::collections::BTreeMap;
use std::time::Duration;

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::group_request::Kind as Asked;
use tokio::time::{sleep, timeout};

use crate::support::Node;
use crate::support::member::*;

const OTHER: &str = "returns";

/// A member that may be silent for the whole test.
fn patient(member_id: &str) -> v1::Join {
    v1::Join {
        session_ms: 60_000,
        ..join_as(member_id)
    }
}

/// A member that reads both topics.
fn join_both(member_id: &str) -> v1::Join {
    v1::Join {
        topics: vec![READ.to_owned(), OTHER.to_owned()],
        ..patient(member_id)
    }
}

/// Start offsets of a member, by topic and partition.
fn beginnings(member: &Member) -> BTreeMap<(String, u32), Option<u64>> {
    let owned = member.assignment.partitions.iter();
    owned
        .map(|one| ((one.topic.clone(), one.partition), one.committed))
        .collect()
}

async fn delete(node: &mut Node, topic: &str) {
    let request = v1::DeleteTopicRequest {
        name: topic.to_owned(),
    };
    node.client.delete_topic(request).await.expect("it goes");
}

async fn describe(node: &mut Node) -> v1::GroupInfo {
    let request = v1::DescribeGroupRequest {
        group: GROUP.to_owned(),
    };
    let described = node.client.describe_group(request).await;
    described.expect("a group").into_inner()
}

#[tokio::test]
async fn a_member_goes_on_without_a_topic_that_is_missing_and_gets_it_from_its_beginning() {
    let mut node = cluster().await;
    let mut a = Member::join(&node, join_both("a")).await;
    a.owns(4).await;
    assert_eq!(a.assignment.missing_topics, [OTHER]);
    assert_eq!(describe(&mut node).await.missing_topics, [OTHER]);
    node.create_topic(OTHER, 2).await.expect("a topic");
    a.owns(6).await;
    assert_eq!(a.assignment.missing_topics, [""; 0]);
    assert_eq!(describe(&mut node).await.missing_topics, [""; 0]);
    let begins = beginnings(&a);
    assert_eq!(begins[&(OTHER.to_owned(), 0)], Some(0));
    assert_eq!(begins[&(OTHER.to_owned(), 1)], Some(0));
    assert_eq!(begins[&(READ.to_owned(), 0)], None, "where it says itself");
    node.still_serves().await;
}

#[tokio::test]
async fn a_member_comes_back_though_one_of_its_topics_was_deleted_meanwhile() {
    let mut node = cluster().await;
    node.create_topic(OTHER, 2).await.expect("a topic");
    let mut a = Member::join(&node, join_both("a")).await;
    a.owns(6).await;
    delete(&mut node, OTHER).await;
    a.owns(4).await;
    drop(a);
    let again = v1::Join {
        again: true,
        ..join_both("a")
    };
    let mut back = Member::try_join(&node, again).await.expect("it is in");
    assert_eq!(back.assignment.missing_topics, [OTHER]);
    back.owns(4).await;
    let own = back.assignment.partitions[0].clone();
    write(&mut node, own.partition).await;
    assert_eq!(back.commit(&own, 1).await, Ok(()));
    node.still_serves().await;
}

#[tokio::test]
async fn a_topic_deleted_and_created_again_is_given_out_again_from_its_beginning() {
    let mut node = cluster().await;
    let mut a = Member::join(&node, patient("a")).await;
    a.owns(4).await;
    let before = a.assignment.partitions[0].clone();
    write(&mut node, before.partition).await;
    assert_eq!(a.commit(&before, 1).await, Ok(()));
    delete(&mut node, READ).await;
    node.create_topic(READ, 3).await.expect("it is made again");
    a.owns(3).await;
    for one in &a.assignment.partitions {
        assert_ne!(one.topic_id, before.topic_id);
        assert_eq!(one.committed, Some(0));
    }
    assert_eq!(a.commit(&before, 1).await, Err(ErrorCode::NotOwner));
    let places = describe(&mut node).await.partitions;
    assert!(places.iter().all(|one| one.topic_id != before.topic_id));
    node.still_serves().await;
}

#[tokio::test]
async fn partitions_that_a_topic_gains_begin_at_0_and_the_others_where_the_member_says() {
    let mut node = cluster().await;
    let mut a = Member::join(&node, patient("a")).await;
    a.owns(4).await;
    let grow = v1::GrowTopicRequest {
        name: READ.to_owned(),
        partitions: 6,
    };
    node.client.grow_topic(grow).await.expect("it grows");
    a.owns(6).await;
    let begins: Vec<Option<u64>> = beginnings(&a).into_values().collect();
    assert_eq!(begins, [None, None, None, None, Some(0), Some(0)]);
    node.still_serves().await;
}

#[tokio::test]
async fn an_operator_moves_no_group_that_does_not_exist_unless_it_may_create_it() {
    let mut node = cluster().await;
    let seek = v1::SeekGroupRequest {
        group: "mistyped".to_owned(),
        topic: READ.to_owned(),
        position: Some(v1::seek_group_request::Position::Beginning(true)),
        ..v1::SeekGroupRequest::default()
    };
    let refused = async {
        loop {
            let refused = node.client.seek_group(seek.clone()).await;
            let error = WireError::from(&refused.expect_err("refused"));
            match error.code {
                // The coordinator is not elected yet.
                ErrorCode::NoLeader | ErrorCode::NotLeader => {
                    sleep(Duration::from_millis(50)).await
                }
                code => return code,
            }
        }
    };
    let refused = timeout(crate::support::PATIENCE, refused)
        .await
        .expect("in time");
    assert_eq!(refused, ErrorCode::UnknownGroup);
    let request = v1::ListGroupsRequest { local: false };
    let groups = node.client.list_groups(request).await.expect("a list");
    assert_eq!(groups.into_inner().groups, []);
    let create = v1::SeekGroupRequest {
        create: true,
        ..seek
    };
    let moved = node.client.seek_group(create).await.expect("it is made");
    assert_eq!(moved.into_inner().positions.len(), PARTITIONS as usize);
    node.still_serves().await;
}

#[tokio::test]
async fn a_member_that_is_back_goes_on_though_it_reads_nothing_at_all() {
    let mut node = cluster().await;
    let mut a = Member::join(&node, patient("a")).await;
    a.owns(4).await;
    delete(&mut node, READ).await;
    a.owns(0).await;
    let told = a.ask(Asked::Heartbeat(v1::Heartbeat {})).await;
    assert_eq!(told, v1::group_response::Kind::Done(v1::GroupDone {}));
    node.still_serves().await;
}
