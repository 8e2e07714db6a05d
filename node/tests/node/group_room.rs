//! Limits on the bytes of a consumer group's state, as its members and operators meet them.

use std::time::Duration;

use ropewalk_node::Config;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::group_request::Kind as Asked;
use ropewalk_proto::v1::group_response::Kind as Told;
use tokio::time::timeout;

use crate::support::Node;
use crate::support::member::{GROUP, Member, PARTITIONS, READ, SESSION_MS, join_as, write};

/// Longer than any of these tests.
const PATIENT_MS: u32 = 100 * SESSION_MS;

async fn node(group_bytes: u64, coordinator_group_bytes: u64) -> Node {
    let change = |config: &mut Config| {
        config.limits.group_partitions = 1;
        config.limits.group_bytes = group_bytes;
        config.limits.coordinator_group_bytes = coordinator_group_bytes;
    };
    let mut node = Node::start_with(change).await;
    node.create_topic(READ, PARTITIONS).await.expect("a topic");
    for partition in 0..PARTITIONS {
        write(&mut node, partition).await;
    }
    node
}

fn join(group: &str, member_id: &str) -> v1::Join {
    v1::Join {
        group: group.to_owned(),
        session_ms: PATIENT_MS,
        ..join_as(member_id)
    }
}

/// Commits one offset in each of these partitions. Returns the refusals by partition.
async fn commit(
    member: &mut Member,
    partitions: &[u32],
    offset: u64,
    note: &str,
) -> Vec<(u32, WireError)> {
    let own = &member.assignment.partitions;
    let named = own.iter().filter(|one| partitions.contains(&one.partition));
    let positions = named.map(|one| v1::GroupPosition {
        topic_id: one.topic_id,
        partition: one.partition,
        epoch: one.epoch,
        offset,
        note: note.to_owned(),
    });
    let commit = v1::Commit {
        positions: positions.collect(),
    };
    assert_eq!(commit.positions.len(), partitions.len());
    match member.ask(Asked::Commit(commit)).await {
        Told::Committed(committed) => {
            let refused = committed.refused.into_iter();
            let refused = refused.filter_map(|one| Some((one.partition, one.error?.into())));
            refused.collect()
        }
        other => panic!("a commit was answered by {other:?}"),
    }
}

#[tokio::test]
async fn a_commit_past_the_bound_of_its_group_is_refused_by_position_and_what_only_moves_passes() {
    let node = node(8_000, 1 << 20).await;
    let mut member = Member::join(&node, join(GROUP, "a")).await;
    member.owns(PARTITIONS as usize).await;
    let long = "n".repeat(3_000);
    assert!(commit(&mut member, &[0, 1], 0, &long).await.is_empty());
    let refused = commit(&mut member, &[0, 2], 1, &long).await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    let (partition, error) = &refused[0];
    assert_eq!((*partition, error.code), (2, ErrorCode::Overloaded));
    for part in [GROUP, "8000", "group_bytes", "shorter notes"] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
    assert!(commit(&mut member, &[0, 1], 1, &long).await.is_empty());
    assert!(commit(&mut member, &[0], 1, "").await.is_empty());
    assert!(commit(&mut member, &[2], 1, &long).await.is_empty());
    node.still_serves().await;
}

#[tokio::test]
async fn groups_past_the_bound_of_their_coordinator_are_refused_until_one_is_deleted() {
    let mut node = node(1 << 20, 8_000).await;
    let mut member = Member::join(&node, join(GROUP, "a")).await;
    member.owns(PARTITIONS as usize).await;
    let note = "n".repeat(3_500);
    assert!(commit(&mut member, &[0, 1], 1, &note).await.is_empty());
    let refused = Member::try_join(&node, join("other", "b")).await.err();
    let refused = refused.expect("no room for its member");
    assert_eq!(refused.code, ErrorCode::Overloaded);
    let message = &refused.message;
    assert!(message.contains("coordinator_group_bytes"), "{message}");
    assert!(message.contains("delete unused groups"), "{message}");
    let seek = v1::SeekGroupRequest {
        group: "other".to_owned(),
        topic: READ.to_owned(),
        position: Some(v1::seek_group_request::Position::Beginning(true)),
        create: true,
        ..Default::default()
    };
    let sought = node.client.seek_group(seek.clone()).await;
    let sought = WireError::from(&sought.expect_err("no room for its positions"));
    assert_eq!(sought.code, ErrorCode::Overloaded, "{sought}");
    // A member may rejoin and leave.
    let mut member = Member::join(&node, join(GROUP, "a")).await;
    member.ask(Asked::Leave(v1::Leave {})).await;
    let deleted = node.client.delete_group(v1::DeleteGroupRequest {
        group: GROUP.to_owned(),
    });
    deleted.await.expect("nobody is in it");
    node.client.seek_group(seek).await.expect("room again");
    Member::join(&node, join("other", "b")).await;
    node.still_serves().await;
}

/// A member that also reads every topic whose name begins with `p`.
fn join_pattern(group: &str, topics: Vec<String>) -> v1::Join {
    v1::Join {
        topics,
        pattern: "p.*".to_owned(),
        ..join(group, "a")
    }
}

/// Checks that the member's assignment does not change for a second.
async fn gets_nothing(member: &mut Member) {
    let next = timeout(Duration::from_secs(1), member.next()).await;
    assert!(next.is_err(), "the group is full: {next:?}");
}

#[tokio::test]
async fn a_full_group_gets_the_room_of_a_deleted_topic_back_while_its_member_stays() {
    let mut node = node(7_000, 1 << 20).await;
    // A long name makes each partition of the group large.
    let group = "g".repeat(200);
    node.create_topic("pbig", 8).await.expect("a topic");
    let mut member = Member::join(&node, join_pattern(&group, Vec::new())).await;
    member.owns(8).await;
    node.create_topic("pnew", 8).await.expect("a topic");
    gets_nothing(&mut member).await;
    let deleted = node.client.delete_topic(v1::DeleteTopicRequest {
        name: "pbig".to_owned(),
    });
    deleted.await.expect("it goes");
    let has_new = |assignment: &v1::Assignment| {
        let partitions = &assignment.partitions;
        partitions.len() == 8 && partitions.iter().all(|one| one.topic == "pnew")
    };
    while !has_new(&member.assignment) {
        match member.next().await.kind {
            Some(Told::Assignment(assignment)) => member.assignment = assignment,
            other => panic!("not an assignment: {other:?}"),
        }
    }
    node.still_serves().await;
}

#[tokio::test]
async fn a_full_group_gets_its_new_topic_once_it_is_smaller_without_other_metadata() {
    let mut node = node(8_000, 1 << 20).await;
    let join = join_pattern(GROUP, vec![READ.to_owned()]);
    let mut member = Member::join(&node, join).await;
    member.owns(PARTITIONS as usize).await;
    let long = "n".repeat(3_400);
    assert!(commit(&mut member, &[0, 1], 0, &long).await.is_empty());
    node.create_topic("pnew", 4).await.expect("a topic");
    gets_nothing(&mut member).await;
    assert!(commit(&mut member, &[0], 1, "").await.is_empty());
    member.owns(PARTITIONS as usize + 4).await;
    node.still_serves().await;
}
