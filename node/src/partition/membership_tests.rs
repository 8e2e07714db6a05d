//! Authority over a partition's membership changes, on the cluster of `test_cluster`.

use std::time::Duration;

use ropewalk_machines::meta::view::ReplicaPlacement;
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId};
use ropewalk_raft_store::inspect::{self, Digest};
use ropewalk_raft_store::{RaftNode, disk::MemoryDisk};

use super::membership::Next;
use super::test_cluster::{GROUP, Node, PATIENCE, TOPIC, TestCluster, eventually, place, settings};
use crate::raft::{ReplicationStatus, Step};

#[tokio::test]
async fn a_leader_with_an_older_picture_takes_nobody_in_again() {
    let cluster = TestCluster::start(4, settings()).await;
    cluster.change(|view| view.next_replica = place(4).replica);
    let older = cluster.view.borrow().clone();
    let leader = cluster.leader().await;
    let goes = (1..=3)
        .find(|node| NodeId(*node) != leader.host.node_id)
        .unwrap();
    cluster.change(|view| view.next_replica.0 += 1);
    cluster.change_partition(|partition| {
        partition.retiring = vec![place(goes)];
        let mut replicas = partition.replicas.iter_mut();
        *replicas.find(|held| **held == place(goes)).unwrap() = place(4);
    });
    eventually("moved replica", || {
        let group = leader.group();
        group.quiet && !group.members.contains_key(&place(goes).replica)
    })
    .await;
    let newer = cluster.view.borrow().clone();
    let before = leader.group();
    assert!(before.voters.contains(&place(4).replica));

    // Simulates a leader after a restart, or cut off from the metadata: it does not know of the move yet.
    cluster.view.send_replace(older);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(leader.group().since, before.since);
    cluster.view.send_replace(newer);
    let mut whole = |node: &Node| {
        let replica = node.partitions.get(GROUP);
        replica.is_some_and(|replica| replica.group().in_sync == before.voters)
    };
    eventually("whole group", || cluster.nodes.values().any(&mut whole)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_step_that_was_decided_for_another_membership_is_not_taken() {
    let cluster = TestCluster::start(4, settings()).await;
    let leader = cluster.leader().await;
    let group = leader.group();
    let broker = RaftNode {
        node_id: NodeId(4),
        address: String::new(),
    };
    let next = Next::Take(Step::AddLearner(place(4).replica, broker));
    let another = ReplicationStatus {
        since: None,
        ..group.clone()
    };
    leader.take(next.clone(), &another).await;
    assert_eq!(leader.group().since, group.since);
    leader.take(next, &group).await;
    eventually("other membership", || leader.group().since != group.since).await;
    cluster.stop().await;
}

/// Raft group of a partition that is added later.
const LATER: GroupId = GroupId(8);

fn later_place(node: u64) -> ReplicaPlacement {
    ReplicaPlacement {
        replica: ReplicaId(node * 10 + 1),
        ..place(node)
    }
}

/// Waits for the founding entry of the later group in this node's replica, and returns its digest.
async fn founding_entry(disk: &MemoryDisk, node: u64) -> Digest {
    let written = async {
        loop {
            let replica = later_place(node).replica;
            let seen = inspect::replica(disk, LATER, replica, 0).await.unwrap();
            if let Some(first) = seen.entries.first() {
                assert_eq!((first.place.term, first.place.index), (0, 0));
                return first.digest;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let written = tokio::time::timeout(PATIENCE, written).await;
    written.expect("a founding entry in time")
}

#[tokio::test]
async fn founding_replicas_write_the_same_though_a_node_moves_between() {
    let mut cluster = TestCluster::start(3, settings()).await;
    cluster.kill(NodeId(3)).await;
    let second = cluster.kill(NodeId(2)).await;
    cluster.change(|view| {
        let partitions = &mut view.topics.get_mut(TOPIC).unwrap().partitions;
        let mut later = partitions[0].clone();
        (later.partition, later.group) = (1, LATER);
        later.founding = (1..=3).map(later_place).collect();
        later.replicas.clone_from(&later.founding);
        partitions.push(later);
    });
    let by_first = founding_entry(&cluster.nodes[&NodeId(1)].disk, 1).await;
    cluster.kill(NodeId(1)).await;
    cluster.come_back(NodeId(2), second.disk).await;
    let by_second = founding_entry(&cluster.nodes[&NodeId(2)].disk, 2).await;
    assert_eq!(by_first, by_second);
    cluster.stop().await;
}
