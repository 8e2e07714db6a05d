//! Nodes that leave, by command or by failure: their replicas move to other nodes.

use ropewalk_proto::v1::SetNodeState;

use super::*;

#[tokio::test]
async fn what_a_node_that_stays_away_held_is_wished_for_elsewhere() {
    let mut nodes = start_cluster_with(
        4,
        Limits {
            node_lost_after_ms: 1_000,
            ..limits()
        },
    )
    .await;
    nodes[0]
        .cluster
        .propose(create("orders", 4, 3))
        .await
        .unwrap();
    let lost = nodes.pop().unwrap();
    let lost_id = lost.id();
    lost.stop().await;
    nodes[0]
        .sees("all replicas on living nodes", |view| {
            let mut held = view.partitions().flat_map(|one| &one.replicas);
            held.all(|place| place.node != lost_id)
        })
        .await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_node_told_to_leave_leads_no_more_and_is_removed_once_it_is_empty() {
    let nodes = start_cluster(3).await;
    eventually("life", || {
        (1..=3).all(|id| nodes.iter().all(|n| n.cluster.alive(NodeId(id))))
    })
    .await;
    eventually("controller", || nodes[0].cluster.controller().is_some()).await;
    let leader = nodes[0].cluster.controller().unwrap();
    let leave = meta_command::Kind::SetNodeState(SetNodeState {
        node_id: leader.0,
        state: NodeState::Decommissioning.into(),
    });
    nodes[0].cluster.propose(leave).await.unwrap();
    let stays = nodes.iter().find(|node| node.id() != leader).unwrap();
    stays
        .sees("the removal", |view| {
            view.nodes[&leader].state == NodeState::Removed
        })
        .await;
    eventually("new controller", || {
        let now = stays.cluster.controller();
        now.is_some_and(|now| now != leader) && !stays.cluster.metadata_voters().contains(&leader)
    })
    .await;
    stays.cluster.propose(create("after", 1, 2)).await.unwrap();
    for node in nodes {
        node.stop().await;
    }
}
