//! A record on the path of an event, with its printed form. The JSON names are part of the contract.

use bytes::Bytes;
use ropewalk_client::ConsumedRecord;
use serde::{Serialize, Serializer};

use super::super::record::{Text, as_time, time_text};
use crate::output::{Row, shown};

/// Maximum indentation depth of the printed tree.
const DEEPEST: usize = 24;
const NONE: &str = "-";

/// Data of a matching record.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    pub source: Option<String>,
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
    #[serde(serialize_with = "as_time", rename = "timestamp")]
    pub time_ms: i64,
    #[serde(serialize_with = "as_text")]
    pub key: Option<Bytes>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub trace_id: Option<String>,
}

/// An event with its position on the path.
#[derive(Debug, Serialize)]
pub struct PathRow {
    /// Number of causes above it.
    pub depth: usize,
    /// Time since its cause; for a top event, since the first event.
    pub delta_ms: i64,
    #[serde(flatten)]
    pub event: Event,
}

impl Event {
    pub fn new(topic: &str, record: &ConsumedRecord) -> Event {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Event {
            event_id: owned(record.event_id()),
            event_type: owned(record.event_type()),
            source: owned(record.event_source()),
            topic: topic.to_owned(),
            partition: record.partition,
            offset: record.offset,
            time_ms: record.event_time_ms().unwrap_or(record.timestamp_ms),
            // Copied, since a slice would keep the whole batch.
            key: record.key.as_deref().map(Bytes::copy_from_slice),
            correlation_id: owned(record.correlation_id()),
            causation_id: owned(record.causation_id()),
            trace_id: record.trace_context().map(|trace| trace.trace_id()),
        }
    }

    /// Approximate memory size.
    pub fn bytes(&self) -> usize {
        let texts = [
            &self.event_id,
            &self.event_type,
            &self.source,
            &self.correlation_id,
            &self.causation_id,
        ];
        let texts = texts.into_iter().flatten().map(String::len);
        size_of::<Event>() + texts.sum::<usize>() + self.key.as_ref().map_or(0, Bytes::len)
    }
}

impl Row for PathRow {
    const COLUMNS: &'static [&'static str] = &[
        "event", "record", "key", "time", "delta_ms", "event_id", "trace_id",
    ];

    fn cells(&self) -> Vec<String> {
        let event = &self.event;
        let branch = match self.depth {
            0 => String::new(),
            depth => format!("{}└─ ", "   ".repeat(depth.min(DEEPEST) - 1)),
        };
        let text = |text: &Option<String>| {
            let text = text.as_deref();
            text.map_or(NONE.to_owned(), |text| shown(text.as_bytes()))
        };
        vec![
            format!("{branch}{}", text(&event.event_type)),
            format!("{}/{}@{}", event.topic, event.partition, event.offset),
            event.key.as_deref().map_or(NONE.to_owned(), shown),
            time_text(event.time_ms),
            format!("{:+}", self.delta_ms),
            text(&event.event_id),
            text(&event.trace_id),
        ]
    }
}

fn as_text<S: Serializer>(key: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
    key.as_deref().map(Text).serialize(serializer)
}
