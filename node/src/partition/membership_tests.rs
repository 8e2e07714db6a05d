//! Who changes a partition's membership, and by what, on the cluster of `test_cluster`.

use std::time::Duration;

use ropewalk_proto::ids::NodeId;
use ropewalk_raft_store::Broker;

use super::followers::Group;
use super::membership::Step;
use super::test_cluster::{GROUP, Node, TestCluster, eventually, place, settings};

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

    // As after a restart, or cut off from the metadata: the leader knows nothing of the move yet.
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
    let broker = Broker {
        node_id: NodeId(4),
        address: String::new(),
    };
    let step = Step::AddLearner(place(4).replica, broker);
    let another = Group {
        since: None,
        ..group.clone()
    };
    leader.take_step(step.clone(), &another).await;
    assert_eq!(leader.group().since, group.since);
    leader.take_step(step, &group).await;
    eventually("other membership", || leader.group().since != group.since).await;
    cluster.stop().await;
}
