//! Records that leave a topic as text and come back, and the ways to name the records to read.

use bytes::Bytes;
use ropewalk_client::{Client, ConsumedRecord, Header, Offset, Record};
use serde_json::json;
use tokio::process::Command;

use crate::support::{Cluster, binary};

const PARTITIONS: u32 = 3;

async fn with_topics(topics: &[&str]) -> Cluster {
    let cluster = Cluster::start(1, &[]).await;
    for topic in topics {
        let partitions = PARTITIONS.to_string();
        let args = ["topic", "create", topic, "-p", &partitions, "-r", "1"];
        cluster.run(&args).await.ok();
    }
    cluster
}

/// All records of a topic, partition by partition.
async fn everything(client: &Client, topic: &str) -> Vec<ConsumedRecord> {
    let mut found = Vec::new();
    for partition in 0..PARTITIONS {
        let end = client.offset(topic, partition, Offset::End).await.unwrap();
        let reader = client.reader(topic, partition).from(Offset::Beginning);
        let mut reader = reader.build().await.unwrap();
        while let Some(record) = reader.next_before(end).await {
            found.push(record.unwrap());
        }
    }
    found
}

/// Unusual records: nulls that differ from empty values, bytes that are not text, lines within lines.
fn odd_records() -> Vec<Record> {
    let odd: [Option<&'static [u8]>; 7] = [
        None,
        Some(b""),
        Some(b"\0"),
        Some(b"\xff\xfe\0"),
        Some(b"two\nlines\r\n"),
        Some(br#"{"base64":"AA=="}"#),
        Some("\u{1b}[2J \u{2028} é \"quoted\" \\".as_bytes()),
    ];
    let header = |key: &str, value: Option<&'static [u8]>| Header {
        key: key.into(),
        value: value.map(Bytes::from_static),
    };
    let mut records = Vec::new();
    for (number, key) in (0..).zip(odd) {
        for value in odd {
            let mut record = Record::new()
                .partition(number % PARTITIONS)
                .timestamp_ms(1_700_000_000_000 + i64::from(number))
                .headers([header("h", key), header("h", value), header("", None)]);
            if let Some(key) = key {
                record = record.key(key);
            }
            if let Some(value) = value {
                record = record.value(value);
            }
            records.push(record);
        }
    }
    records
}

#[tokio::test]
async fn what_consume_prints_produce_takes_back_byte_by_byte() {
    let cluster = with_topics(&["original", "copy", "by-key"]).await;
    let client = cluster.client().await;
    let producer = client.producer("original").build().await.unwrap();
    for record in odd_records() {
        producer.send(record).await.unwrap().await.unwrap();
    }
    let printed = cluster
        .run(&["consume", "original", "-o", "jsonl"])
        .await
        .ok();
    let keep = ["produce", "copy", "-i", "jsonl", "--keep-partitions"];
    cluster.run_with(printed.as_bytes(), &keep).await.ok();
    let original = everything(&client, "original").await;
    assert_eq!(original.len(), odd_records().len());
    assert_eq!(everything(&client, "copy").await, original);

    let by_key = ["produce", "by-key", "-i", "jsonl", "-o", "jsonl"];
    let acked = cluster.run_with(printed.as_bytes(), &by_key).await.lines();
    assert_eq!(acked.len(), original.len());
    let odd = b"{\"value\":\"fine\"}\n{\"vlaue\":\"misspelt\"}\n";
    let error = cluster.run_with(odd, &by_key).await.refused(1);
    assert!(
        error.contains("1 record published") && error.contains("line 2"),
        "{error}"
    );
    let error = cluster
        .run_with(b"{\"value\":\"v\"}\n", &keep)
        .await
        .refused(1);
    assert!(error.contains("line 1 has no partition"), "{error}");
    assert!(error.contains("no record published"), "{error}");
}

#[tokio::test]
async fn one_record_is_published_from_the_command_line_and_deleted_by_a_tombstone() {
    let cluster = with_topics(&["t"]).await;
    let published = [
        "produce", "t", "--key", "gate", "--value", "-7", "-H", "a=1", "-o", "jsonl",
    ];
    let first = cluster.run(&published).await.lines();
    let deleted = ["produce", "t", "-k", "gate", "--tombstone", "-o", "jsonl"];
    let second = cluster.run(&deleted).await.lines();
    assert_eq!(first[0]["partition"], second[0]["partition"]);
    cluster.run(&["produce", "t", "-v", "no key"]).await.ok();
    let read = cluster.run(&["consume", "t"]).await.lines();
    let found = |key: serde_json::Value, value: serde_json::Value| {
        let is_it = |row: &&serde_json::Value| row["key"] == key && row["value"] == value;
        read.iter().filter(is_it).count()
    };
    assert_eq!(found(json!("gate"), json!("-7")), 1, "{read:?}");
    assert_eq!(found(json!("gate"), json!(null)), 1, "{read:?}");
    assert_eq!(found(json!(null), json!("no key")), 1, "{read:?}");
    assert_eq!(read.len(), 3);
}

#[tokio::test]
async fn several_topics_are_read_by_name_or_pattern_and_printed_as_asked() {
    let cluster = with_topics(&["gate-1", "gate-2", "other"]).await;
    for topic in ["gate-1", "gate-2", "other"] {
        let args = ["produce", topic, "-p", "1", "--key-separator", ":"];
        cluster.run_with(b"k:v\n", &args).await.ok();
    }
    let lines = async |args: &[&str]| -> Vec<String> {
        let format = ["consume", "--format", r"%t/%p@%o %k=%v%%\n"];
        let out = cluster.run(&[&format[..], args].concat()).await.ok();
        let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let gates = ["gate-1/1@0 k=v%", "gate-2/1@0 k=v%"];
    assert_eq!(lines(&["gate-1", "gate-2"]).await, gates);
    assert_eq!(lines(&["--pattern", "gate-."]).await, gates);
    assert_eq!(lines(&["--pattern", "gate-.", "-g", "g"]).await, gates);
    assert_eq!(lines(&["gate-1", "other", "-n", "2"]).await.len(), 2);
    let error = cluster
        .run(&["consume", "--pattern", "gate"])
        .await
        .refused(1);
    assert!(error.contains("no topic matches \"gate\""), "{error}");
    let table = cluster
        .run(&["consume", "gate-1", "gate-2", "-o", "table"])
        .await
        .ok();
    assert!(
        table.contains("gate-1/1/0\t") && table.contains("gate-2/1/0\t"),
        "{table}"
    );

    let error = cluster.run(&["consume", "_groups"]).await.refused(1);
    assert!(error.contains("group list"), "{error}");
}

#[tokio::test]
async fn a_misspelt_topic_gets_the_one_that_was_meant() {
    let cluster = with_topics(&["flights"]).await;
    let misspelt: [&[&str]; 5] = [
        &["consume", "fligths"],
        &["produce", "flihgts", "-v", "1"],
        &["topic", "describe", "flight"],
        &["topic", "rm", "Flights"],
        &["partition", "ls", "flightss"],
    ];
    for args in misspelt {
        let error = cluster.run(args).await.refused(1);
        assert!(
            error.contains("did you mean \"flights\"?"),
            "{args:?}: {error}"
        );
    }
    let error = cluster.run(&["consume", "payments"]).await.refused(1);
    assert!(!error.contains("did you mean"), "{error}");
}

#[tokio::test]
async fn completions_offer_the_topics_and_groups_of_the_cluster() {
    let cluster = with_topics(&["flights"]).await;
    cluster
        .run(&["consume", "flights", "-g", "billing"])
        .await
        .ok();
    let offered = async |words: &[&str]| -> String {
        let addresses = cluster.addresses();
        let typed = ["--", "ropewalk", "--bootstrap", &addresses];
        let output = Command::new(binary())
            .env("ROPEWALK_COMPLETE", "fish")
            .args([&typed[..], words].concat())
            .output()
            .await
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(offered(&["consume", "fl"]).await.contains("flights"));
    assert!(offered(&["topic", "rm", ""]).await.contains("flights"));
    assert!(offered(&["group", "lag", "b"]).await.contains("billing"));
    assert!(offered(&["consume", "--gr"]).await.contains("--group"));
    assert!(!offered(&["topic", "create", ""]).await.contains("flights"));
}
