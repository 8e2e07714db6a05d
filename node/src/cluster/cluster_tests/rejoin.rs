//! Nodes that lost their data, and remember the cluster they belong to.

use std::collections::BTreeSet;

use ropewalk_machines::meta::MetadataImage;

use super::*;

#[tokio::test]
async fn two_of_three_that_lost_their_data_wait_for_their_cluster_and_found_none() {
    let mut homes = Vec::new();
    let nodes = start_cluster(3).await;
    let cluster_id = nodes[0].cluster_id();
    for node in nodes {
        homes.push(node.stop().await);
    }
    let (whole, disk) = homes.pop().unwrap();
    let mut lost = Vec::new();
    for (config, _) in homes {
        let config = Config {
            member_of: Some(cluster_id.clone()),
            ..config
        };
        let listener = listen(&config.advertise).await;
        lost.push(TestNode::serve(config, listener, Arc::default()).await);
    }
    let started = || futures_util::future::join_all(lost.iter().map(|node| node.cluster.start()));
    let waits = tokio::time::timeout(Duration::from_secs(2), started()).await;
    assert!(
        waits.is_err(),
        "the third is down, and nobody else knows their cluster"
    );

    // The third is back. Alone it is not a majority, and cannot admit them.
    let listener = listen(&whole.advertise).await;
    let third = TestNode::serve(whole, listener, disk).await;
    let all = async { tokio::join!(started(), third.cluster.start()) };
    let waits = tokio::time::timeout(Duration::from_secs(3), all).await;
    assert!(waits.is_err());
    for node in &lost {
        assert_eq!((node.id(), node.cluster_id()), (NodeId(0), String::new()));
    }
    assert_eq!(third.cluster_id(), cluster_id);
    third.stop().await;
    for node in lost {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_database_of_another_cluster_than_the_directory_remembers_is_refused() {
    let node = TestNode::start("127.0.0.1:0", &[], Arc::default()).await;
    let (config, disk) = node.stop().await;
    let config = Config {
        member_of: Some("another".into()),
        ..config
    };
    let env = Env {
        clock: Arc::new(SystemClock),
        disk: disk.clone(),
        net: Arc::new(TcpNet),
        seed: 7,
        log_lines_lost: || 0,
    };
    let store = Store::open(disk, StoreOptions::default()).await.unwrap();
    let peers = Peers::new(env.net.clone(), &config.limits);
    let inbound = ReplicaRouter::new(&config.limits);
    let refused = Cluster::new(&config, &env, &store, &peers, &inbound).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("of cluster another"), "{refused}");
}

/// Found by the simulator: callers of a restarted node believed no other node from then on.
#[tokio::test]
async fn nodes_that_have_applied_as_much_say_so_also_if_one_was_started_again() {
    let mut nodes = start_cluster(3).await;
    // A change of leader is an entry that changes nothing else.
    let back = hand_over(&mut nodes).await;
    let (config, disk) = back.stop().await;
    nodes.push(TestNode::start(&config.advertise, &config.seeds, disk).await);
    eventually("one index", || {
        let indexes = nodes.iter().map(|node| node.cluster.view_as_of().1);
        indexes.collect::<BTreeSet<_>>().len() == 1
    })
    .await;
    for node in nodes {
        node.stop().await;
    }
}

/// Found by the simulator: a caller that asked this node first believed forever that no node led anything.
#[tokio::test]
async fn a_node_that_could_not_hear_of_its_removal_is_told_by_whom_it_speaks_to() {
    let mut nodes = start_cluster(3).await;
    eventually("controller", || nodes[0].cluster.controller().is_some()).await;
    let leader = nodes[0].cluster.controller().unwrap();
    let deaf = nodes.iter().position(|node| node.id() != leader).unwrap();
    let deaf = nodes.remove(deaf);
    // It reaches the others, but they cannot reach it.
    deaf.inbound.close();
    deaf.serving.cancel();
    let leave = ropewalk_proto::v1::SetNodeState {
        node_id: deaf.id().0,
        state: NodeState::Decommissioning.into(),
    };
    let leave = meta_command::Kind::SetNodeState(leave);
    nodes[0].cluster.propose(leave).await.unwrap();
    for node in &nodes {
        let removed =
            |view: &Arc<MetadataImage>| view.nodes[&deaf.id()].state == NodeState::Removed;
        node.sees("the removal", removed).await;
    }
    eventually("word of it", || deaf.cluster.is_forsaken()).await;
    assert!(nodes.iter().all(|node| !node.cluster.is_forsaken()));
    deaf.stop().await;
    for node in nodes {
        node.stop().await;
    }
}
