//! Nodes killed with SIGKILL under a load of keyed records.

use ropewalk_demo::publish::Publisher;

use crate::support::{Cluster, PATIENCE, keyed_records};

const PARTITIONS: u32 = 6;
const PER_SECOND: u32 = 2_000;

async fn three_nodes_under_load() -> (Cluster, Publisher) {
    let cluster = Cluster::start(3, &[]).await;
    let partitions = PARTITIONS.to_string();
    cluster
        .run(&["topic", "create", "t", "--partitions", &partitions])
        .await
        .ok();
    let producer = cluster.client().await.producer("t").build().await.unwrap();
    (cluster, Publisher::new(producer, PER_SECOND))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_killed_in_turn_under_load_loses_nothing_that_was_acknowledged() {
    let (mut cluster, mut publisher) = three_nodes_under_load().await;
    let records = keyed_records(9_000);
    for (round, chunk) in records.chunks(3_000).enumerate() {
        let (before, rest) = chunk.split_at(1_000);
        let (during, after) = rest.split_at(1_000);
        publisher.publish(before).await.unwrap();
        cluster.nodes[round].kill().await.unwrap();
        publisher.publish(during).await.unwrap();
        cluster.nodes[round].start(PATIENCE).await.unwrap();
        publisher.publish(after).await.unwrap();
        cluster.healthy().await;
    }
    let acks = publisher.finish().await.unwrap();
    cluster.check("t", PARTITIONS, &records, &acks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_killed_at_once_come_back_with_all_that_was_acknowledged() {
    let (mut cluster, mut publisher) = three_nodes_under_load().await;
    let records = keyed_records(4_000);
    let (before, after) = records.split_at(2_000);
    publisher.publish(before).await.unwrap();
    for node in &mut cluster.nodes {
        node.kill().await.unwrap();
    }

    // One of three is no majority: it reports that, and accepts nothing.
    cluster.nodes[1].spawn().unwrap();
    let refused = cluster
        .run_with(b"lost?\n", &["produce", "t", "--timeout", "3s"])
        .await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.out.is_empty(), "{refused:?}");

    cluster.nodes[0].spawn().unwrap();
    cluster.nodes[2].spawn().unwrap();
    for (node, id) in cluster.nodes.iter_mut().zip(&cluster.ids) {
        assert_eq!(node.ready(PATIENCE).await.unwrap().node_id, *id);
    }
    publisher.publish(after).await.unwrap();
    let acks = publisher.finish().await.unwrap();
    cluster.healthy().await;
    cluster.check("t", PARTITIONS, &records, &acks).await;
}
