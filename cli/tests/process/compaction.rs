//! A compacted topic, through the command: three processes, and a reader that starts at the beginning.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use crate::support::{Cluster, PATIENCE};

const KEYS: usize = 20;
const ROUNDS: usize = 60;

/// Nodes that check retention and compaction continuously.
async fn eager_cluster() -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("node.toml");
    fs::write(&config, "[limits]\nretention_interval_ms = '100ms'\n").unwrap();
    let flags = ["--config", config.to_str().unwrap()];
    Cluster::start_in(dir, 3, &flags).await
}

/// The last value of each key.
fn table(records: &[Value]) -> BTreeMap<String, Value> {
    let own = |record: &Value| (record["key"].to_string(), record["value"].clone());
    records.iter().map(own).collect()
}

#[tokio::test]
async fn a_reader_of_a_compacted_topic_gets_the_last_value_of_each_key_where_it_was() {
    let cluster = eager_cluster().await;
    let create = [
        "topic",
        "create",
        "t",
        "--partitions",
        "1",
        "--set",
        "cleanup=compact",
        "--set",
        "segment_bytes=16KiB",
        "--set",
        "min_dirty_percent=1",
        "--set",
        "delete_horizon=1h",
    ];
    let made = cluster.run(&create).await.lines();
    assert_eq!(made[0]["cleanup"], "compact");
    assert_eq!(made[0]["delete_horizon_ms"], 3_600_000);

    let refused = cluster
        .run_with(b"no key\n", &["produce", "t"])
        .await
        .refused(1);
    assert!(refused.contains("has no key"), "{refused}");

    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let line = |key| format!("key-{key}:round {round} {}\n", "x".repeat(100));
        let input: String = (0..KEYS).map(line).collect();
        let produce = ["produce", "t", "--key-separator", ":", "-o", "jsonl"];
        let acked = cluster.run_with(input.as_bytes(), &produce).await.lines();
        all.extend(acked.iter().map(|ack| ack["offset"].as_u64().unwrap()));
    }
    assert_eq!(all.len(), KEYS * ROUNDS);
    let end = all.iter().max().unwrap() + 1;

    let until = Instant::now() + PATIENCE;
    let kept = loop {
        let kept = cluster.run(&["consume", "t", "-o", "jsonl"]).await.lines();
        if kept.len() < KEYS * ROUNDS / 3 {
            break kept;
        }
        assert!(Instant::now() < until, "{} records are left", kept.len());
        sleep(Duration::from_millis(200)).await;
    };
    let table = table(&kept);
    assert_eq!(table.len(), KEYS);
    let last = format!("round {} ", ROUNDS - 1);
    assert!(
        table
            .values()
            .all(|value| value.as_str().unwrap().starts_with(&last))
    );
    let offsets: Vec<u64> = kept
        .iter()
        .map(|record| record["offset"].as_u64().unwrap())
        .collect();
    assert!(offsets.is_sorted());
    assert_eq!(offsets.last().map(|last| last + 1), Some(end));

    let set = cluster
        .run(&["topic", "set", "t", "cleanup=delete"])
        .await
        .lines();
    assert_eq!(set[0]["cleanup"], "delete");
}
