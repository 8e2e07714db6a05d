//! Topics and records through the command, as scripts use it.

use std::fs::File;
use std::io::pipe;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{Cluster, PATIENCE, binary};

async fn one_node_with_a_topic(partitions: &str) -> Cluster {
    let cluster = Cluster::start(1, &[]).await;
    let args = [
        "topic",
        "create",
        "t",
        "--partitions",
        partitions,
        "--replicas",
        "1",
    ];
    let made = cluster.run(&args).await.lines();
    assert_eq!(made[0]["topic"], "t");
    cluster
}

#[tokio::test]
async fn records_come_back_as_they_were_given() {
    let cluster = one_node_with_a_topic("4").await;
    let input = b"a:1\nb:\xff\xfe\na:2\n:empty key\n";
    let args = [
        "produce",
        "t",
        "--key-separator",
        ":",
        "--header",
        "from=gate",
        "-o",
        "jsonl",
    ];
    let acked = cluster.run_with(input, &args).await.lines();
    assert_eq!(acked.len(), 4);
    assert_eq!(acked[0]["partition"], acked[2]["partition"]);
    assert!(acked[0]["offset"].as_u64() < acked[2]["offset"].as_u64());

    let read = cluster.run(&["consume", "t", "-o", "jsonl"]).await.lines();
    for (place, (key, value)) in acked.iter().zip([
        ("a", json!("1")),
        ("b", json!({"base64": "//4="})),
        ("a", json!("2")),
        ("", json!("empty key")),
    ]) {
        let record = read.iter().find(|record| {
            record["partition"] == place["partition"] && record["offset"] == place["offset"]
        });
        let record = record.unwrap_or_else(|| panic!("{place} is not in {read:?}"));
        assert_eq!((&record["key"], &record["value"]), (&json!(key), &value));
        assert_eq!(record["topic"], "t");
        assert_eq!(record["headers"], json!([{"key": "from", "value": "gate"}]));
        assert!(record["timestamp"].is_string());
    }
    assert_eq!(read.len(), 4);

    // Lines with Windows line ends keep their bytes, and cause one notice.
    let done = cluster
        .run_with(b"crlf\r\nmore\r\n", &["produce", "t", "-p", "0"])
        .await;
    let said = done.err.clone();
    assert!(said.contains("ends in a carriage return"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(done.lines().len(), 2);
    let read = cluster.run(&["consume", "t", "-p", "0"]).await.lines();
    let kept = read.iter().any(|record| record["value"] == "crlf\r");
    assert!(kept, "{read:?}");
}

/// Publishes these lines, and reads only one line of stdout, if it is a pipe. Returns the exit code, and the
/// content of stderr if it is a pipe.
async fn publish_unread(
    cluster: &Cluster,
    input: &str,
    format: &str,
    (stdout, stderr): (Stdio, Stdio),
) -> (Option<i32>, String) {
    let mut child = Command::new(binary())
        .args(["--bootstrap", &cluster.addresses()])
        .args(["produce", "t", "-o", format])
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(stderr)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    let feeding = tokio::spawn(async move { stdin.write_all(input.as_bytes()).await });
    if let Some(stdout) = child.stdout.take() {
        let mut first = String::new();
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut first).await.unwrap();
    }
    let ended = timeout(PATIENCE, child.wait_with_output()).await;
    let ended = ended.expect("the command does not end").unwrap();
    feeding.await.unwrap().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    (ended.status.code(), said)
}

#[tokio::test]
async fn every_line_is_published_though_nobody_reads_its_offset() {
    let cluster = one_node_with_a_topic("1").await;
    let lines = 40_000;
    let input: String = (0..lines).map(|number| format!("{number}\n")).collect();
    for format in ["jsonl", "json"] {
        let pipes = (Stdio::piped(), Stdio::piped());
        let ended = publish_unread(&cluster, &input, format, pipes).await;
        assert_eq!(ended, (Some(0), String::new()), "{format}");
    }
    // A full disk accepts no offsets either, but the records must still be published.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let full = (full.into(), Stdio::piped());
    let (code, said) = publish_unread(&cluster, &input, "jsonl", full).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("40000 records published, but stdout"),
        "{said}"
    );
    // Stderr needs no reader either.
    let (_, closed) = pipe().unwrap();
    let quiet = (Stdio::null(), closed.into());
    let ended = publish_unread(&cluster, &input, "table", quiet).await;
    assert_eq!(ended, (Some(0), String::new()));
    let count = cluster.run(&["consume", "t", "--from", "@159999"]).await;
    assert_eq!(count.lines().len(), 1);
}

#[tokio::test]
async fn reading_begins_and_ends_where_it_was_asked_to() {
    let cluster = one_node_with_a_topic("2").await;
    let input: Vec<String> = (0..100).map(|number| format!("{number}\n")).collect();
    let input = input.concat();
    for compression in ["none", "lz4", "zstd", "snappy", "gzip"] {
        let args = [
            "produce",
            "t",
            "--partition",
            "1",
            "--compression",
            compression,
        ];
        cluster.run_with(input.as_bytes(), &args).await.ok();
    }
    let values = async |args: &[&str]| -> Vec<Value> {
        let args = [&["consume", "t"], args].concat();
        let read = cluster.run(&args).await.lines();
        read.into_iter()
            .map(|record| record["value"].clone())
            .collect()
    };
    assert_eq!(values(&[]).await.len(), 500);
    assert_eq!(values(&["--partition", "0"]).await.len(), 0);
    assert_eq!(values(&["--from", "end"]).await.len(), 0);
    assert_eq!(values(&["--from", "-1h", "--count", "2"]).await, ["0", "1"]);
    assert_eq!(values(&["--from", "2100-01-01T00:00:00Z"]).await.len(), 0);
    assert_eq!(
        values(&["--partition", "1", "--from", "@498"]).await,
        ["98", "99"]
    );
    assert_eq!(values(&["--follow", "--count", "500"]).await.len(), 500);
    let error = cluster
        .run(&["consume", "t", "--partition", "1", "--from", "@501"])
        .await;
    assert!(error.refused(1).contains("an offset from 0 to 500"));
}

#[tokio::test]
async fn what_the_cluster_refuses_ends_with_1_and_says_why() {
    let cluster = one_node_with_a_topic("1").await;
    let refused: [(&[&str], &str); 12] = [
        (&["topic", "create", "t"], "exists"),
        (
            &["topic", "create", "a/b", "--replicas", "1"],
            "invalid topic name",
        ),
        (&["topic", "create", "u", "--replicas", "3"], "nodes"),
        (
            &["topic", "describe", "nope"],
            "topic \"nope\" does not exist",
        ),
        (&["topic", "delete", "nope"], "topic nope does not exist"),
        (&["topic", "set", "t", "no-such=1"], "no-such"),
        (&["consume", "nope"], "topic \"nope\" does not exist"),
        (&["consume", "t", "--partition", "7"], "has no partition 7"),
        (&["produce", "nope"], "topic \"nope\" does not exist"),
        (&["produce", "t", "--partition", "7"], "no partition t/7"),
        (&["cluster", "drain", "99"], "node 99 does not exist"),
        (
            &["bench", "produce", "--topic", "nope"],
            "topic \"nope\" does not exist",
        ),
    ];
    for (args, why) in refused {
        let error = cluster.run_with(b"record\n", args).await.refused(1);
        assert!(error.contains(why), "{args:?}: {error}");
    }
    let large = "x".repeat(2 << 20);
    let error = cluster
        .run_with(large.as_bytes(), &["produce", "t"])
        .await
        .refused(1);
    assert!(error.contains("line 1"), "{error}");
    let error = cluster.run_with(
        b"k=v\nno separator\n",
        &["produce", "t", "--key-separator", "="],
    );
    let error = error.await.refused(1);
    assert!(
        error.contains("line 2") && error.contains("1 record published"),
        "{error}"
    );
}

#[tokio::test]
async fn settings_and_states_are_shown_as_programs_read_them() {
    let cluster = one_node_with_a_topic("2").await;
    let set = cluster
        .run(&["topic", "set", "t", "retention=1h"])
        .await
        .lines();
    assert_eq!(set[0]["retention_ms"], 3_600_000);
    let status = cluster.run(&["cluster", "status"]).await.lines();
    assert_eq!(status.len(), 1);
    for key in [
        "node_id",
        "address",
        "http",
        "rack",
        "state",
        "leaders",
        "replicas",
        "controller",
        "version",
    ] {
        assert!(status[0].get(key).is_some(), "{key}: {status:?}");
    }
    let rows = cluster
        .partitions_once("t", |row| row["leader"] == cluster.ids[0])
        .await;
    assert_eq!(rows.len(), 2);
    for key in [
        "topic",
        "partition",
        "epoch",
        "replicas",
        "in_sync",
        "log_start",
        "high_watermark",
    ] {
        assert!(rows[0].get(key).is_some(), "{key}: {rows:?}");
    }
    let bench = [
        "bench",
        "produce",
        "--topic",
        "t",
        "--duration",
        "500ms",
        "--keys",
        "10",
        "-o",
        "json",
    ];
    let report: Value = serde_json::from_str(&cluster.run(&bench).await.ok()).unwrap();
    assert_eq!(report["errors"], 0);
    assert!(report["records"].as_u64().unwrap() > 0 && report["ack_ms"]["p99"].is_number());
    cluster.run(&["topic", "delete", "t"]).await.ok();
    assert_eq!(cluster.run(&["topic", "list"]).await.lines().len(), 0);
}
