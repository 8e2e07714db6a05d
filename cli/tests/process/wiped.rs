//! A node that lost its disk comes back empty, and gets the same log from the other nodes.

use std::fs;

use ropewalk_demo::publish::Publisher;
use ropewalk_proto::v1::ropewalk_client::RopewalkClient;
use ropewalk_proto::v1::{FetchRequest, FetchedBatch};
use serde_json::Value;

use crate::support::{Cluster, PATIENCE, keyed_records};

const PARTITIONS: u32 = 2;

/// All batches of a partition's leader, byte for byte, from the beginning of its log.
pub async fn log(cluster: &Cluster, row: &Value) -> (u64, Vec<FetchedBatch>) {
    let leader = row["leader"].as_u64().unwrap();
    let status = cluster.run(&["cluster", "status"]).await.lines();
    let node = status
        .iter()
        .find(|node| node["node_id"] == leader)
        .unwrap();
    let address = format!("http://{}", node["address"].as_str().unwrap());
    let mut node = RopewalkClient::connect(address).await.unwrap();
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    let receiver = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|request| (request, receiver))
    });
    let start = row["log_start"].as_u64().unwrap();
    let end = row["high_watermark"].as_u64().unwrap();
    let request = |offset| FetchRequest {
        topic: "t".into(),
        partition: row["partition"].as_u64().unwrap() as u32,
        offset,
        max_bytes: 1 << 20,
        ..FetchRequest::default()
    };
    requests.send(request(start)).await.unwrap();
    let mut answers = node.fetch(Box::pin(receiver)).await.unwrap().into_inner();
    let (mut batches, mut log_start) = (Vec::<FetchedBatch>::new(), start);
    loop {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.error, None);
        log_start = log_start.max(answer.log_start_offset);
        batches.extend(answer.batches);
        let next = batches.last().map_or(start, |batch| {
            // The header of a batch contains its record count (bytes 57 to 60).
            let count = batch.batch[57..61].try_into().unwrap();
            batch.base_offset + u64::from(u32::from_be_bytes(count))
        });
        if next >= end {
            return (log_start, batches);
        }
        requests.send(request(next)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_gets_back_the_same_bytes_also_of_a_log_whose_beginning_is_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("node.toml");
    fs::write(&config, "[limits]\nretention_interval_ms = '250ms'\n").unwrap();
    let flags = ["--config".to_string(), config.to_str().unwrap().into()];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut cluster = Cluster::start_in(dir, 3, &flags).await;
    let create = [
        "topic",
        "create",
        "t",
        "--partitions",
        "2",
        "--retention-size",
        "128KiB",
        "--set",
        "segment_bytes=16KiB",
    ];
    cluster.run(&create).await.ok();
    // Small batches, so that there are segments to trim even if a slow machine sends them late.
    let client = cluster.client().await;
    let producer = client.producer("t").batch_bytes(4 << 10);
    let producer = producer.build().await.unwrap();
    let mut publisher = Publisher::new(producer, 4_000);
    publisher.publish(&keyed_records(6_000)).await.unwrap();
    publisher.finish().await.unwrap();
    cluster
        .partitions_once("t", |row| row["log_start"].as_u64() > Some(0))
        .await;

    let lost = cluster.ids[2];
    cluster.nodes[2].kill().await.unwrap();
    fs::remove_dir_all(cluster.nodes[2].data_dir()).unwrap();
    let new = cluster.nodes[2].start(PATIENCE).await.unwrap().node_id;
    assert_ne!(new, lost, "a node without its disk is a new node");
    let holds =
        |row: &Value, key: &str, node: u64| row[key].as_array().unwrap().contains(&node.into());
    let there = |row: &Value| holds(row, "in_sync", new) && !holds(row, "replicas", lost);
    let rows = cluster.partitions_once("t", there).await;
    cluster.healthy().await;
    assert_eq!(rows.len(), PARTITIONS as usize);

    let old = cluster.ids[0];
    for partition in 0..PARTITIONS as usize {
        let name = format!("t/{partition}");
        let mut logs = Vec::new();
        for leader in [old, new] {
            let to = leader.to_string();
            cluster
                .run(&["partition", "transfer", &name, "--to", &to])
                .await
                .ok();
            let leads = |row: &Value| row["partition"] != partition || row["leader"] == leader;
            let rows = cluster.partitions_once("t", leads).await;
            logs.push(log(&cluster, &rows[partition]).await);
        }
        assert!(!logs[0].1.is_empty());
        assert_eq!(
            logs[0].0, logs[1].0,
            "the logs of {name} begin at different offsets"
        );
        assert_eq!(logs[0].1, logs[1].1, "the logs of {name} differ");
    }
}
