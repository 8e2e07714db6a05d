//! Range of each partition to read: its start and its end.

use anyhow::bail;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, TryStreamExt};
use ropewalk_client::{
    Client, ConsumedRecord, Offset, OnTrimmed, OnUnreadable, Reader, ReaderBuilder,
};
use ropewalk_node::env::{Clock, SystemClock};

use super::topic::NoTopic;
use crate::args::ConsumeArgs;
use crate::parse::StartAt;

/// Maximum number of concurrent offset lookups.
const ASKED_AT_ONCE: usize = 32;

/// A range of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetRange {
    pub partition: u32,
    /// The first offset.
    pub start: u64,
    /// The offset after the last; none to follow new records.
    pub end: Option<u64>,
}

/// Ranges of a topic that `consume` reads.
pub async fn of(
    client: &Client,
    topic: &str,
    args: &ConsumeArgs,
) -> anyhow::Result<Vec<OffsetRange>> {
    let all = partitions(client, topic).await?;
    let wanted = match args.partition {
        None => all,
        Some(partition) if all.contains(&partition) => vec![partition],
        Some(partition) => bail!(
            "topic {topic:?} has no partition {partition}; it has 0 to {}",
            all.len().saturating_sub(1)
        ),
    };
    // The time is fixed once, for all partitions.
    let from = place(args.from);
    stream::iter(wanted)
        .map(|partition| one(client, topic, args, partition, from))
        .buffered(ASKED_AT_ONCE)
        .try_collect()
        .await
}

/// Converts a position to the client's type; a relative time counts from now.
pub fn place(from: StartAt) -> Offset {
    match from {
        StartAt::Beginning => Offset::Beginning,
        StartAt::End => Offset::End,
        StartAt::Offset(offset) => Offset::At(offset),
        StartAt::TimeMs(time_ms) => Offset::TimestampMs(time_ms),
        StartAt::AgoMs(ago_ms) => Offset::TimestampMs(SystemClock.now_ms().saturating_sub(ago_ms)),
    }
}

/// Ranges of all records that the topic holds now.
pub async fn everything(client: &Client, topic: &str) -> anyhow::Result<Vec<OffsetRange>> {
    stream::iter(partitions(client, topic).await?)
        .map(|partition| async move {
            let start = client.offset(topic, partition, Offset::Beginning).await?;
            let end = Some(client.offset(topic, partition, Offset::End).await?);
            Ok(OffsetRange {
                partition,
                start,
                end,
            })
        })
        .buffered(ASKED_AT_ONCE)
        .try_collect()
        .await
}

/// A partition from this position to its current end.
pub async fn up_to_now(
    client: &Client,
    topic: &str,
    partition: u32,
    from: Offset,
) -> anyhow::Result<OffsetRange> {
    let end = client.offset(topic, partition, Offset::End).await?;
    let start = client.offset(topic, partition, from).await?;
    Ok(OffsetRange {
        partition,
        start,
        end: Some(end),
    })
}

/// Like [`records`], but skips unreadable records, and records that are trimmed before they are read.
pub fn records_left(
    client: Client,
    topic: String,
    range: OffsetRange,
) -> BoxStream<'static, anyhow::Result<ConsumedRecord>> {
    if range.end.is_some_and(|end| range.start >= end) {
        return stream::empty().boxed();
    }
    let opened = async move {
        let reader = client.reader(&topic, range.partition);
        let reader = reader.from(Offset::At(range.start));
        let reader = reader.on_trimmed(OnTrimmed::SkipToBeginning);
        let reader = reader.on_unreadable(OnUnreadable::Skip);
        anyhow::Ok(until(reader.build().await?, range))
    };
    stream::once(opened).try_flatten().boxed()
}

/// The partitions of a topic, by number.
pub async fn partitions(client: &Client, topic: &str) -> anyhow::Result<Vec<u32>> {
    match client.admin().topic(topic).await? {
        Some(found) => Ok(found.partitions.iter().map(|one| one.partition).collect()),
        None => bail!(NoTopic(topic.to_owned())),
    }
}

async fn one(
    client: &Client,
    topic: &str,
    args: &ConsumeArgs,
    partition: u32,
    from: Offset,
) -> anyhow::Result<OffsetRange> {
    let end = client.offset(topic, partition, Offset::End).await?;
    let start = match from {
        Offset::End => end,
        Offset::Beginning | Offset::TimestampMs(_) => client.offset(topic, partition, from).await?,
        Offset::At(offset) => {
            let begin = client.offset(topic, partition, Offset::Beginning).await?;
            if args.partition.is_some() && !(begin..=end).contains(&offset) {
                bail!(
                    "offset {offset} is out of range for {topic}/{partition}; start at an offset from {begin} to {end}"
                );
            }
            // With many partitions, each starts at the nearest offset that it holds.
            offset.clamp(begin, end.max(begin))
        }
    };
    Ok(OffsetRange {
        partition,
        start,
        end: (!args.follow).then_some(end),
    })
}

/// The records of a range, in order, from a reader with these settings. Ends with the last record, without
/// waiting for later ones.
pub fn records(
    client: Client,
    topic: String,
    range: OffsetRange,
    settings: impl FnOnce(ReaderBuilder) -> ReaderBuilder + Send + 'static,
) -> BoxStream<'static, anyhow::Result<ConsumedRecord>> {
    if range.end.is_some_and(|end| range.start >= end) {
        return stream::empty().boxed();
    }
    let opened = async move {
        let reader = client
            .reader(&topic, range.partition)
            .from(Offset::At(range.start));
        anyhow::Ok(until(settings(reader).build().await?, range))
    };
    stream::once(opened).try_flatten().boxed()
}

fn until(reader: Reader, range: OffsetRange) -> impl Stream<Item = anyhow::Result<ConsumedRecord>> {
    stream::try_unfold(reader, move |mut reader| async move {
        let end = range.end.unwrap_or(u64::MAX);
        let record = reader.next_before(end).await.transpose()?;
        Ok(record.map(|record| (record, reader)))
    })
}
