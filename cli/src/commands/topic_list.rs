//! `ropewalk topic list`: all topics, with their sizes and rates.

use std::collections::BTreeMap;
use std::time::Duration;

use ropewalk_client::{Client, TopicInfo};
use ropewalk_proto::ids::is_internal;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::Context;
use super::rows::TopicRow;
use crate::output::{NONE, Row, about, millis};

pub async fn run(context: Context, rates: Option<Duration>) -> anyhow::Result<()> {
    let client = context.client().await?;
    let Some(over) = rates else {
        let rows = topics(&client).await?;
        let rows: Vec<HeldRow> = rows.iter().map(HeldRow::from).collect();
        return Ok(context.output.rows(&rows)?);
    };
    let begun = Instant::now();
    let before = topics(&client).await?;
    let before = before.iter().map(|topic| (topic.topic_id, topic));
    let before: BTreeMap<u64, &TopicInfo> = before.collect();
    sleep(over).await;
    let after = topics(&client).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let rated = after
        .iter()
        .map(|topic| RatedRow::new(before.get(&topic.topic_id).copied(), topic, seconds));
    Ok(context.output.rows(&rated.collect::<Vec<_>>())?)
}

/// All topics except internal ones, by name.
async fn topics(client: &Client) -> anyhow::Result<Vec<TopicInfo>> {
    let mut topics = client.admin().topics().await?;
    topics.retain(|topic| !is_internal(&topic.name));
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(topics)
}

/// A topic with its size, as its leaders reported within the last second.
#[derive(Debug, Serialize)]
struct HeldRow {
    #[serde(flatten)]
    topic: TopicRow,
    /// Number of readable records; for a compacted topic, the number before compaction.
    records: u64,
    /// Bytes in the logs of its leaders. Each further replica takes the same again.
    bytes: u64,
}

impl From<&TopicInfo> for HeldRow {
    fn from(topic: &TopicInfo) -> HeldRow {
        let partitions = topic.partitions.iter();
        let held = |start: u64, end: u64| end.saturating_sub(start);
        HeldRow {
            topic: TopicRow::from(topic),
            records: partitions
                .clone()
                .map(|one| held(one.log_start_offset, one.high_watermark))
                .fold(0, u64::saturating_add),
            bytes: partitions
                .map(|one| one.log_bytes)
                .fold(0, u64::saturating_add),
        }
    }
}

impl Row for HeldRow {
    const COLUMNS: &'static [&'static str] = &[
        "topic",
        "partitions",
        "replicas",
        "records",
        "bytes",
        "retention",
        "cleanup",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.topic.topic.clone(),
            self.topic.partitions.to_string(),
            self.topic.replicas.to_string(),
            self.records.to_string(),
            about(self.bytes),
            millis(self.topic.retention_ms),
            self.topic.cleanup.to_string(),
        ]
    }
}

/// A topic with its incoming rates.
#[derive(Debug, Serialize)]
struct RatedRow {
    #[serde(flatten)]
    held: HeldRow,
    records_per_s: Option<f64>,
    /// None if retention or compaction removed bytes meanwhile.
    bytes_per_s: Option<f64>,
}

impl RatedRow {
    fn new(before: Option<&TopicInfo>, after: &TopicInfo, seconds: f64) -> RatedRow {
        let held = HeldRow::from(after);
        let end = |topic: &TopicInfo| -> u64 {
            let ends = topic.partitions.iter().map(|one| one.high_watermark);
            ends.fold(0, u64::saturating_add)
        };
        let rate = |before: u64, after: u64| Some(after.checked_sub(before)? as f64 / seconds);
        RatedRow {
            records_per_s: before.and_then(|before| rate(end(before), end(after))),
            bytes_per_s: before.and_then(|before| rate(HeldRow::from(before).bytes, held.bytes)),
            held,
        }
    }
}

impl Row for RatedRow {
    const COLUMNS: &'static [&'static str] = &[
        "topic",
        "partitions",
        "replicas",
        "records",
        "bytes",
        "records/s",
        "bytes/s",
    ];

    fn cells(&self) -> Vec<String> {
        let rate = |per_s: Option<f64>, shown: fn(u64) -> String| {
            per_s.map_or(NONE.into(), |per_s| shown(per_s.round() as u64))
        };
        vec![
            self.held.topic.topic.clone(),
            self.held.topic.partitions.to_string(),
            self.held.topic.replicas.to_string(),
            self.held.records.to_string(),
            about(self.held.bytes),
            rate(self.records_per_s, |per_s| per_s.to_string()),
            rate(self.bytes_per_s, about),
        ]
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::v1;

    use super::*;

    fn topic(ends: &[u64], log_bytes: u64) -> TopicInfo {
        let partition = |end: &u64| v1::PartitionInfo {
            log_start_offset: 10,
            high_watermark: *end,
            log_bytes,
            ..Default::default()
        };
        TopicInfo::from(v1::TopicInfo {
            name: "flights".into(),
            partitions: ends.iter().map(partition).collect(),
            ..Default::default()
        })
    }

    #[test]
    fn a_topic_holds_what_its_partitions_do() {
        let row = HeldRow::from(&topic(&[10, 110], 1_024));
        assert_eq!((row.records, row.bytes), (100, 2_048));
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(
            (&json["topic"], &json["records"]),
            (&"flights".into(), &100.into())
        );
    }

    #[test]
    fn rates_are_of_what_came_meanwhile() {
        let before = topic(&[10, 110], 1_024);
        let row = RatedRow::new(Some(&before), &topic(&[30, 120], 2_048), 2.0);
        assert_eq!(
            (row.records_per_s, row.bytes_per_s),
            (Some(15.0), Some(1_024.0))
        );
        let trimmed = RatedRow::new(Some(&before), &topic(&[30, 120], 0), 2.0);
        assert_eq!(
            (trimmed.records_per_s, trimmed.bytes_per_s),
            (Some(15.0), None)
        );
        assert_eq!(RatedRow::new(None, &before, 2.0).cells()[5], NONE);
    }
}
