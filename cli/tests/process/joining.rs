//! A cluster that grows and shrinks, and whose nodes move.

use ropewalk_demo::cluster::{self, Node};
use ropewalk_demo::publish::Publisher;

use crate::support::{Cluster, PATIENCE, binary, keyed_records};

const PARTITIONS: u32 = 6;
/// Share of one node in 18 replicas on four nodes, rounded down.
const FAIR_SHARE: u64 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_node_takes_its_share_and_one_that_leaves_gives_its_own_away() {
    let mut cluster = Cluster::start(3, &[]).await;
    let partitions = PARTITIONS.to_string();
    cluster
        .run(&["topic", "create", "t", "--partitions", &partitions])
        .await
        .ok();
    let producer = cluster.client().await.producer("t").build().await.unwrap();
    let mut publisher = Publisher::new(producer, 5_000);
    let records = keyed_records(4_000);
    publisher.publish(&records[..2_000]).await.unwrap();

    let mut fourth = Node::new(binary(), cluster.dir.path().join("node-4")).unwrap();
    fourth
        .flags
        .extend(["--seeds".into(), cluster.nodes[0].address.clone()]);
    let joined = fourth.start(PATIENCE).await.unwrap().node_id;
    assert!(!cluster.ids.contains(&joined));
    cluster.nodes.push(fourth);
    publisher.publish(&records[2_000..]).await.unwrap();

    cluster
        .status_once(|rows| {
            let fourth = rows.iter().find(|row| row["node_id"] == joined);
            fourth.is_some_and(|row| row["replicas"].as_u64() >= Some(FAIR_SHARE))
        })
        .await;

    let leaving = cluster.ids[0];
    let told = leaving.to_string();
    cluster
        .run(&["cluster", "decommission", &told, "--wait"])
        .await
        .ok();
    let holds = |row: &serde_json::Value, node: u64| {
        row["replicas"].as_array().unwrap().contains(&node.into())
    };
    let rows = cluster
        .partitions_once("t", |row| !holds(row, leaving))
        .await;
    assert!(rows.iter().all(|row| holds(row, joined)), "{rows:#?}");
    cluster.healthy().await;
    let acks = publisher.finish().await.unwrap();
    cluster.check("t", PARTITIONS, &records, &acks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_at_another_address_catches_up_with_leaders_that_stayed() {
    let mut cluster = Cluster::start(3, &[]).await;
    cluster
        .run(&["topic", "create", "t", "--partitions", "3"])
        .await
        .ok();
    let producer = cluster.client().await.producer("t").build().await.unwrap();
    let mut publisher = Publisher::new(producer, 5_000);
    let records = keyed_records(1_000);
    publisher.publish(&records[..500]).await.unwrap();
    cluster.nodes[2].terminate(PATIENCE).await.unwrap();
    publisher.publish(&records[500..]).await.unwrap();

    let before = cluster.nodes[2].address.clone();
    cluster.nodes[2].address = format!("127.0.0.1:{}", cluster::free_port().unwrap());
    let ready = cluster.nodes[2].start(PATIENCE).await.unwrap();
    assert_eq!(ready.node_id, cluster.ids[2]);
    assert_ne!(cluster.nodes[2].address, before);
    cluster.healthy().await;
    let acks = publisher.finish().await.unwrap();
    cluster.check("t", 3, &records, &acks).await;
}
