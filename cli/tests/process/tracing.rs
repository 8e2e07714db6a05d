//! The path of an event across topics, as `ropewalk trace` finds it.

use futures_util::StreamExt;
use ropewalk_client::{Client, ConsumedRecord, Offset, Record, headers};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{Cluster, PATIENCE};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const TOPICS: [&str; 3] = ["landings", "bags", "belts"];

async fn cluster() -> Cluster {
    let cluster = Cluster::start(1, &[]).await;
    for topic in TOPICS {
        let settings = ["--partitions", "3", "--replicas", "1"];
        let create = [&["topic", "create", topic], &settings[..]].concat();
        cluster.run(&create).await.ok();
    }
    cluster
}

/// Sends an event, and reads it back like a service that responds to it.
async fn send(client: &Client, topic: &str, event: Record) -> ConsumedRecord {
    let sent = async {
        let producer = client.producer(topic).build().await?;
        let place = producer.send(event).await?.await?;
        let reader = client.reader(topic, place.partition);
        let mut reader = reader.from(Offset::At(place.offset)).build().await?;
        reader.next().await.expect("it has no end")
    };
    timeout(PATIENCE, sent).await.expect("this hangs").unwrap()
}

fn types(rows: &[Value]) -> Vec<&str> {
    let types = rows.iter().map(|row| row["event_type"].as_str());
    types.map(Option::unwrap_or_default).collect()
}

#[tokio::test]
async fn events_of_three_topics_are_printed_in_the_order_of_their_causes() {
    let cluster = cluster().await;
    let client = cluster.client().await;
    let at = |event_type: &'static str, second: i64| {
        let event = Record::event(event_type).key("N14228");
        event.timestamp_ms(1_769_817_600_000 + second * 1_000)
    };
    let landed = at("landed", 0).header(
        headers::TRACEPARENT,
        format!("00-{TRACE}-00000000000000ab-01"),
    );
    let landed = send(&client, "landings", landed).await;
    // The last response happened first, by its clock.
    let unloaded = send(&client, "bags", at("unloaded", 9).caused_by(&landed)).await;
    let on_belt = send(&client, "belts", at("on belt", 5).caused_by(&unloaded)).await;
    let counted = send(&client, "bags", at("counted", 7).caused_by(&landed)).await;
    send(&client, "landings", at("another", 1)).await;
    let id = landed.event_id().unwrap();

    let rows = cluster.run(&["trace", id, "-o", "jsonl"]).await.lines();
    assert_eq!(types(&rows), ["landed", "counted", "unloaded", "on belt"]);
    let numbers = |key: &str| rows.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
    assert_eq!(numbers("depth"), [0, 1, 1, 2]);
    assert_eq!(numbers("delta_ms"), [0, 7_000, 9_000, -4_000]);
    let found = [
        ("landings", &landed),
        ("bags", &counted),
        ("bags", &unloaded),
        ("belts", &on_belt),
    ];
    for (row, (topic, record)) in rows.iter().zip(found) {
        assert_eq!(row["topic"], topic);
        assert_eq!(row["partition"], record.partition);
        assert_eq!(row["offset"], record.offset);
        assert_eq!(row["key"], "N14228");
        assert_eq!(row["event_id"], record.event_id().unwrap());
        assert_eq!(row["causation_id"], json!(record.causation_id()));
        assert_eq!(row["correlation_id"], id);
        assert_eq!(row["trace_id"], TRACE);
    }
    assert_eq!(rows[0]["timestamp"], "2026-01-31T00:00:00.000Z");

    let table = cluster.run(&["trace", id, "-o", "table"]).await.ok();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    for (line, event) in
        lines[1..]
            .iter()
            .zip(["landed", "└─ counted", "└─ unloaded", "   └─ on belt"])
    {
        assert!(line.starts_with(event), "{table}");
    }
    // The path of a single event.
    let own = cluster.run(&["trace", on_belt.event_id().unwrap()]).await;
    assert_eq!(types(&own.lines()), ["on belt"]);
}

#[tokio::test]
async fn a_path_is_looked_for_where_and_since_when_it_was_asked_for() {
    let cluster = cluster().await;
    let old = b"before anybody thought of it\n";
    let header = "correlation-id=case 7";
    for topic in TOPICS {
        let produce = [
            "produce",
            topic,
            "--header",
            header,
            "--header",
            "ce_type=noted",
        ];
        cluster.run_with(old, &produce).await.ok();
    }
    let trace = async |args: &[&str]| {
        let args = [&["trace", "case 7"], args].concat();
        cluster.run(&args).await
    };
    assert_eq!(trace(&[]).await.lines().len(), 3);
    assert_eq!(trace(&["--from", "-1h"]).await.lines().len(), 3);
    let two = ["--topic", "bags", "--topic", "belts"];
    assert_eq!(types(&trace(&two).await.lines()), ["noted", "noted"]);
    let json: Value = serde_json::from_str(&trace(&["-o", "json"]).await.ok()).unwrap();
    assert_eq!(json.as_array().map(Vec::len), Some(3));

    let nothing = trace(&["--from", "2100-01-01T00:00:00Z"]).await.refused(1);
    assert!(nothing.contains("in 0 records of 3 topics"), "{nothing}");
    let nothing = cluster.run(&["trace", "case 8"]).await.refused(1);
    assert!(nothing.contains("in 3 records"), "{nothing}");
    let unknown = trace(&["--topic", "bags", "--topic", "nope"])
        .await
        .refused(1);
    assert!(
        unknown.contains("topic \"nope\" does not exist"),
        "{unknown}"
    );
}
