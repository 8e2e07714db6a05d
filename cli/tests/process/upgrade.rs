//! A node on data that an older build left when it was killed during work. `cli/tests/fixtures/make` creates
//! the archives.

use std::fs::File;
use std::path::Path;

use ropewalk_demo::cluster;
use serde_json::{Value, json};

use crate::support::{Cluster, PATIENCE, binary};

/// Sorts rows by partition and offset.
fn by_place(mut rows: Vec<Value>) -> Vec<Value> {
    let place = |row: &Value| (row["partition"].as_u64(), row["offset"].as_u64());
    rows.sort_by_key(place);
    rows
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().map(serde_json::from_str);
    rows.collect::<Result<_, _>>().unwrap()
}

async fn a_node_on(archive: &str) -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let archive = File::open(fixtures.join(archive)).unwrap();
    let archive = zstd::Decoder::new(archive).unwrap();
    tar::Archive::new(archive).unpack(dir.path()).unwrap();
    let mut nodes = cluster::cluster(binary(), dir.path(), 1).unwrap();
    std::fs::rename(dir.path().join("data"), nodes[0].data_dir()).unwrap();
    // The group has had no member since the archive was made, and the result of compaction differs.
    let limits = [
        ("GROUP_RETENTION_MS", i64::MAX.to_string()),
        ("COMPACTION_BYTES_PER_S", "0".to_owned()),
    ];
    let limits = limits.map(|(name, value)| (format!("ROPEWALK_LIMITS_{name}"), value));
    nodes[0].env = limits.to_vec();
    let ready = cluster::start_all(&mut nodes, PATIENCE).await.unwrap();
    let ids = ready.iter().map(|ready| ready.node_id).collect();
    Cluster { nodes, ids, dir }
}

#[tokio::test]
async fn what_the_first_version_wrote_is_read_and_written_on() {
    reads_and_writes_on("data-0.1.0.tar.zst").await;
}

#[tokio::test]
async fn what_a_build_before_groups_in_parts_wrote_is_read_and_written_on() {
    reads_and_writes_on("data-0.1.0-commands-9.tar.zst").await;
}

/// Checks that the records and the group's offsets are those that the older build showed, and that work
/// continues from there.
async fn reads_and_writes_on(archive: &str) {
    let cluster = a_node_on(archive).await;
    cluster.healthy().await;
    let was = |name: &str| lines(&cluster.dir.path().join(name));
    for topic in ["flights", "tails"] {
        let consume = ["consume", topic, "--from", "beginning", "-o", "jsonl"];
        let found = cluster.run(&consume).await.lines();
        let expected = was(&format!("{topic}.jsonl"));
        assert!(expected.len() >= 200);
        assert_eq!(by_place(found), by_place(expected), "{topic}");
    }
    let lag = ["group", "lag", "readers", "-o", "jsonl"];
    let lag = cluster.run(&lag).await.lines();
    let positions = |rows: &[Value]| -> Vec<Value> {
        let of = |row: &Value| json!([row["partition"], row["committed"], row["lag_records"]]);
        rows.iter().map(of).collect()
    };
    assert_eq!(positions(&lag), positions(&was("lag.jsonl")));

    let produce = ["produce", "flights", "--key-separator", "|", "-o", "jsonl"];
    let place = cluster
        .run_with(b"N14228|one more\n", &produce)
        .await
        .lines();
    let of_key = |row: &&Value| row["key"] == "N14228";
    let before = was("flights.jsonl");
    let last = before
        .iter()
        .rfind(of_key)
        .map(|row| row["offset"].as_u64());
    if let Some(last) = last {
        assert!(
            place[0]["offset"].as_u64() > last,
            "{place:?} after {last:?}"
        );
    }
    let group = ["consume", "flights", "--group", "readers", "-o", "jsonl"];
    let read = cluster.run(&group).await.lines();
    let behind: u64 = lag
        .iter()
        .filter_map(|row| row["lag_records"].as_u64())
        .sum();
    assert!(read.len() as u64 > behind, "{} of {behind}", read.len());
}
