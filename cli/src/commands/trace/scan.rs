//! Scan of topics for the records of an id, up to the end offsets at the start.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use ropewalk_client::{Client, ConsumedRecord};
use ropewalk_proto::ids::is_internal;

use super::super::range::{self, OffsetRange};
use super::super::topic::NoTopic;
use super::row::Event;
use crate::args::TraceArgs;
use crate::output::bar;

/// Maximum number of partitions that are looked up or read in parallel.
const SIDE_BY_SIDE: usize = 32;
/// Limits on the matches of one id: records, and bytes of their printed data.
const MOST_RECORDS: usize = 10_000;
const MOST_BYTES: usize = 64 << 20;

/// Matching events, and the amount of data searched.
pub struct Looked {
    pub found: Vec<Event>,
    pub records: u64,
    pub topics: usize,
}

pub async fn scan(client: &Client, args: &TraceArgs) -> anyhow::Result<Looked> {
    let partitions = partitions(client, &args.topics).await?;
    let topics = partitions.len();
    let ranges = ranges(client, partitions, args).await?;
    let length = |range: &OffsetRange| range.end.unwrap_or(range.start).saturating_sub(range.start);
    let progress = bar(
        ranges.iter().map(|(_, range)| length(range)).sum(),
        "reading",
    );
    let mut all = stream::iter(ranges)
        .map(|(topic, range)| read(client.clone(), topic, range))
        .flatten_unordered(SIDE_BY_SIDE);
    let mut looked = Looked {
        found: Vec::new(),
        records: 0,
        topics,
    };
    let mut bytes = 0;
    while let Some((topic, record)) = all.try_next().await? {
        looked.records += 1;
        progress.inc(1);
        if !belongs(&record, &args.id) {
            continue;
        }
        let event = Event::new(&topic, &record);
        bytes += event.bytes();
        if looked.found.len() == MOST_RECORDS || bytes > MOST_BYTES {
            progress.finish_and_clear();
            bail!(
                "more than {} records belong to {:?}, or more than {} MiB of ids; pass --topic, or a later --from",
                looked.found.len(),
                args.id,
                MOST_BYTES >> 20
            );
        }
        looked.found.push(event);
    }
    progress.finish_and_clear();
    Ok(looked)
}

fn belongs(record: &ConsumedRecord, id: &str) -> bool {
    record.correlation_id() == Some(id) || record.event_id() == Some(id)
}

/// The requested topics, or all except internal ones, with their partitions.
async fn partitions(
    client: &Client,
    wanted: &[String],
) -> anyhow::Result<Vec<(Arc<str>, Vec<u32>)>> {
    let mut topics = client.admin().topics().await?;
    if let Some(missing) = wanted
        .iter()
        .find(|name| !topics.iter().any(|topic| topic.name == **name))
    {
        bail!(NoTopic(missing.clone()));
    }
    topics.retain(|topic| match wanted {
        [] => !is_internal(&topic.name),
        wanted => wanted.contains(&topic.name),
    });
    let partitions = topics.into_iter().map(|topic| {
        let numbers = topic.partitions.iter().map(|one| one.partition);
        (Arc::from(topic.name), numbers.collect())
    });
    Ok(partitions.collect())
}

/// Range to read of each partition, looked up before any is read.
async fn ranges(
    client: &Client,
    partitions: Vec<(Arc<str>, Vec<u32>)>,
    args: &TraceArgs,
) -> anyhow::Result<Vec<(Arc<str>, OffsetRange)>> {
    let from = range::place(args.from);
    let each = partitions.into_iter().flat_map(|(topic, numbers)| {
        let each = numbers.into_iter();
        each.map(move |number| (topic.clone(), number))
    });
    stream::iter(each)
        .map(|(topic, number)| async move {
            let range = range::up_to_now(client, &topic, number, from).await?;
            anyhow::Ok((topic, range))
        })
        .buffered(SIDE_BY_SIDE)
        .try_collect()
        .await
}

type Read = anyhow::Result<(Arc<str>, ConsumedRecord)>;

fn read(client: Client, topic: Arc<str>, range: OffsetRange) -> stream::BoxStream<'static, Read> {
    let records = range::records_left(client, topic.to_string(), range);
    records
        .map(move |record| {
            let record = record.with_context(|| format!("reading {topic}/{}", range.partition));
            Ok((topic.clone(), record?))
        })
        .boxed()
}
