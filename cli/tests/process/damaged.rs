//! A node with a damaged database rejoins its cluster by itself, and keeps the remains of the database.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ropewalk_demo::flights::Flight;
use ropewalk_demo::publish::Publisher;
use serde_json::Value;

use crate::support::{Cluster, PATIENCE, keyed_records};
use crate::wiped::log;

/// Flips a byte in the middle of the longest database file of this kind: `log` is the write-ahead log, `blob`
/// a file to which its records move later.
fn damage(data_dir: &Path, kind: &str) {
    let files = fs::read_dir(data_dir.join("db")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|is| is == kind));
    let longest = files.max_by_key(|path| path.metadata().unwrap().len());
    let path = longest.expect("a file of this kind");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    assert!(middle > 10_000, "there is something to damage");
    bytes[middle] ^= 0x40;
    fs::write(&path, bytes).unwrap();
}

/// Records so large that each batch goes to a blob file, however few records it has.
fn large_records(count: usize) -> Vec<Flight> {
    let mut records = keyed_records(count);
    for record in &mut records {
        record.value.push_str(&"x".repeat(4_000));
    }
    records
}

fn holds(row: &Value, key: &str, node: u64) -> bool {
    row[key].as_array().unwrap().contains(&node.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_database_is_refused_comes_back_by_itself_and_ends_equal() {
    let mut cluster = Cluster::start(3, &[]).await;
    let create = ["topic", "create", "t", "--partitions", "1"];
    cluster.run(&create).await.ok();
    let producer = cluster.client().await.producer("t").build().await.unwrap();
    let mut publisher = Publisher::new(producer, 4_000);
    let records = large_records(1_500);
    let (before, after) = records.split_at(1_000);
    publisher.publish(before).await.unwrap();
    cluster.healthy().await;

    let lost = cluster.ids[2];
    let data_dir = cluster.nodes[2].data_dir();
    cluster.nodes[2].kill().await.unwrap();
    damage(&data_dir, "log");
    let back = cluster.nodes[2].start(PATIENCE).await.unwrap().node_id;
    assert_ne!(back, lost, "a node without its data is a new node");
    let kept = data_dir.join("quarantine");
    assert!(kept.join("CURRENT").exists(), "the old database is kept");
    let why = fs::read_to_string(kept.join("DAMAGED")).unwrap();
    assert!(!why.trim().is_empty());

    publisher.publish(after).await.unwrap();
    let acks = publisher.finish().await.unwrap();
    let there = |row: &Value| holds(row, "in_sync", back) && !holds(row, "replicas", lost);
    cluster.partitions_once("t", there).await;
    cluster.healthy().await;
    cluster.check("t", 1, &records, &acks).await;
    let mut logs = Vec::new();
    for leader in [cluster.ids[0], cluster.ids[1], back] {
        let to = leader.to_string();
        let transfer = ["partition", "transfer", "t/0", "--to", &to];
        cluster.run(&transfer).await.ok();
        let leads = |row: &Value| row["leader"] == leader;
        let rows = cluster.partitions_once("t", leads).await;
        logs.push(log(&cluster, &rows[0]).await);
    }
    assert!(!logs[0].1.is_empty());
    assert!(logs[0] == logs[1], "the logs of two healthy nodes differ");
    assert!(
        logs[0] == logs[2],
        "the log of the node that came back differs"
    );

    // A second damage before an operator has dealt with the first one stops the node.
    cluster.nodes[2].kill().await.unwrap();
    damage(&data_dir, "log");
    cluster.nodes[2].spawn().unwrap();
    let ended = cluster.nodes[2].ended(Duration::from_secs(20)).await;
    assert!(!ended.unwrap().success());
    let said = cluster.nodes[2].last_words();
    assert!(
        said.contains("still holds an earlier damaged one"),
        "{said}"
    );
    assert!(data_dir.join("db").join("CURRENT").exists());
    fs::rename(&kept, cluster.dir.path().join("looked-at")).unwrap();
    let again = cluster.nodes[2].start(PATIENCE).await.unwrap().node_id;
    assert!(![lost, back].contains(&again));
    cluster.healthy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_block_that_nobody_reads_is_found_and_its_replica_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("node.toml");
    fs::write(&config, "[limits]\nscrub_interval_ms = '300ms'\n").unwrap();
    let config = config.to_str().unwrap().to_owned();
    let mut cluster = Cluster::start_in(dir, 3, &["--config", &config]).await;
    let create = ["topic", "create", "t", "--partitions", "1"];
    cluster.run(&create).await.ok();
    let producer = cluster.client().await.producer("t").build().await.unwrap();
    let mut publisher = Publisher::new(producer, 4_000);
    let records = large_records(300);
    publisher.publish(&records).await.unwrap();
    let acks = publisher.finish().await.unwrap();

    // Reopening the database moves the content of the write-ahead log to tables.
    let (id, node) = (cluster.ids[2], &mut cluster.nodes[2]);
    node.kill().await.unwrap();
    node.start(PATIENCE).await.unwrap();
    node.kill().await.unwrap();
    damage(&node.data_dir(), "blob");
    let back = node.start(PATIENCE).await.unwrap().node_id;
    assert_eq!(back, id, "the rest of its data is whole");
    let log_path = node.log_path();
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let log = fs::read_to_string(&log_path).unwrap();
        if log.contains("removing an unassigned replica") {
            assert!(log.contains("replica set aside as damaged"));
            break;
        }
        let words = cluster.nodes[2].last_words();
        assert!(tokio::time::Instant::now() < until, "not replaced; {words}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.healthy().await;
    let mut logs = Vec::new();
    for leader in [cluster.ids[0], id] {
        let to = leader.to_string();
        let transfer = ["partition", "transfer", "t/0", "--to", &to];
        cluster.run(&transfer).await.ok();
        let leads = |row: &Value| row["leader"] == leader;
        let rows = cluster.partitions_once("t", leads).await;
        logs.push(log(&cluster, &rows[0]).await);
    }
    assert!(!logs[0].1.is_empty());
    assert!(logs[0] == logs[1], "the log of the new replica differs");
    cluster.check("t", 1, &records, &acks).await;
}
