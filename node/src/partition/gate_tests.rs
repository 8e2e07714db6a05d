//! Cost of a broken producer, on running partitions.

use std::sync::Arc;

use bytes::Bytes;
use ropewalk_proto::command::Command;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1::{GroupCommand, MembersLeave, group_command};

use super::cluster_tests::{batch, produce};
use super::test_cluster::{TestCluster, settings};
use super::*;

async fn once(
    partition: &Arc<Partition>,
    ring_version: u32,
    batch: Bytes,
) -> Result<Appended, WireError> {
    partition.propose(ring_version, batch).await?.await
}

#[tokio::test]
async fn a_producer_that_is_broken_leaves_nothing_in_the_log() {
    let cluster = TestCluster::start(1, settings()).await;
    let leader = cluster.leader().await;
    produce(&leader, batch((5, 1, 0), &[b"a"])).await.unwrap();
    let fence = Command::Fence {
        leader_time_ms: 0,
        ring_version: 2,
    };
    leader.housekeeping(fence).await;
    let look = || (leader.replica.view.machine().applied(), leader.log_bytes());
    let before = look();
    let large = vec![0; 200_000];
    for _ in 0..50 {
        for (ring_version, producer, code) in [
            (0, (5, 1, 9), ErrorCode::OutOfOrderSequence),
            (0, (5, 0, 1), ErrorCode::ProducerFenced),
            (0, (6, 0, 4), ErrorCode::UnknownProducer),
            (1, (5, 1, 1), ErrorCode::StaleRing),
            (1, (-1, -1, -1), ErrorCode::StaleRing),
        ] {
            let refused = once(&leader, ring_version, batch(producer, &[&large])).await;
            assert_eq!(refused.unwrap_err().code, code);
        }
    }
    assert_eq!(look(), before);
    cluster.stop().await;
}

#[tokio::test]
async fn copies_of_a_batch_under_way_are_answered_with_its_offset_and_not_written() {
    let cluster = TestCluster::start(3, settings()).await;
    let leader = cluster.leader().await;
    produce(&leader, batch((5, 0, 0), &[b"a", b"b"]))
        .await
        .unwrap();
    let before = leader.replica.view.machine().applied();
    let mut tickets = Vec::new();
    for _ in 0..50 {
        let next = batch((5, 0, 2), &[b"c"]);
        tickets.push(leader.propose(0, next).await.unwrap());
    }
    for (n, ticket) in tickets.into_iter().enumerate() {
        let appended = ticket.await.unwrap();
        assert_eq!((appended.base_offset, appended.duplicate), (2, n > 0));
    }
    assert_eq!(leader.replica.view.machine().applied(), before + 1);
    cluster.stop().await;
}

#[tokio::test]
async fn a_groups_command_under_way_when_the_replica_stops_may_have_been_done() {
    let mut cluster = TestCluster::start(3, settings()).await;
    let leader = cluster.leader().await;
    produce(&leader, batch((5, 0, 0), &[b"a"])).await.unwrap();
    let own = leader.host.node_id;
    let others = [1, 2, 3].map(ropewalk_proto::ids::NodeId);
    for other in others.into_iter().filter(|id| *id != own) {
        cluster.kill(other).await;
    }
    let proposing = leader.clone();
    let proposed = tokio::spawn(async move {
        let leave = group_command::Kind::Leave(MembersLeave::default());
        let command = GroupCommand {
            leader_time_ms: 0,
            group: "g".into(),
            kind: Some(leave),
            rules: 0,
        };
        proposing.propose_group(command).await
    });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    leader.replica.raft.shutdown().await.unwrap();
    let error = proposed.await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::LeadershipLost, "{error}");
    cluster.stop().await;
}
