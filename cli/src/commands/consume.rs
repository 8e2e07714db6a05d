//! `ropewalk consume`: prints records. Records of one partition are printed in order. Partitions are read in
//! parallel, and their records are interleaved as they arrive.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use ropewalk_client::{Client, ConsumedRecord, OnUnreadable, ReaderBuilder};
use ropewalk_proto::ids::is_internal;

use super::interrupt::Interrupts;
use super::printer::RecordPrinter;
use super::range::{self, OffsetRange};
use super::{Context, growing, subscribe};
use crate::args::ConsumeArgs;
use crate::exit::usage;

/// Maximum number of partitions read in parallel. When one ends, the next one starts.
const SIDE_BY_SIDE: usize = 32;

type Ranges = BoxStream<'static, (Arc<str>, OffsetRange)>;
type Records = BoxStream<'static, anyhow::Result<(Arc<str>, ConsumedRecord)>>;

pub async fn run(
    context: Context,
    args: ConsumeArgs,
    mut interrupts: Interrupts,
) -> anyhow::Result<()> {
    check(&args)?;
    let mut out = RecordPrinter::new(&context, &args)?;
    if let Some(group) = &args.group {
        return subscribe::run(&context, &args, group, out, interrupts).await;
    }
    let opening = async {
        let client = context.client().await?;
        let ranges = ranges(&client, &args).await?;
        anyhow::Ok((client, ranges))
    };
    let (client, ranges) = tokio::select! {
        opened = opening => opened?,
        () = interrupts.next() => return Ok(()),
    };
    let side_by_side = (!args.follow).then_some(SIDE_BY_SIDE);
    let how = (args.filter.clone(), args.unreadable());
    let records = all(client, ranges, how, side_by_side);
    let printed = print(records, &args, &mut out, &mut interrupts).await;
    let ended = out.end();
    printed?;
    Ok(ended?)
}

/// Ranges of each topic to read: the requested ones, and with `--follow` those of partitions added later.
async fn ranges(client: &Client, args: &ConsumeArgs) -> anyhow::Result<Ranges> {
    let mut ranges = Vec::new();
    let mut partitions = BTreeMap::new();
    for topic in topics(client, args).await? {
        let found = range::of(client, &topic, args).await?;
        let name: Arc<str> = topic.into();
        partitions.insert(name.clone(), u32::try_from(found.len()).unwrap_or(u32::MAX));
        ranges.extend(found.into_iter().map(|range| (name.clone(), range)));
    }
    let ranges = stream::iter(ranges);
    Ok(match args.follow && args.partition.is_none() {
        true => ranges
            .chain(growing::new_partitions(client.clone(), partitions))
            .boxed(),
        false => ranges.boxed(),
    })
}

fn check(args: &ConsumeArgs) -> anyhow::Result<()> {
    if args.partition.is_some() && args.topics.len() > 1 {
        return Err(usage(
            "--partition needs a single topic; name one topic, or omit --partition",
        ));
    }
    match args.topics.iter().find(|name| is_internal(name)) {
        Some(name) => bail!(
            "topic {name:?} is internal and holds no user records; see `ropewalk group list` and \
             `ropewalk partition list`"
        ),
        None => Ok(()),
    }
}

/// The named topics, or those that currently match the pattern.
pub async fn topics(client: &Client, args: &ConsumeArgs) -> anyhow::Result<Vec<String>> {
    let Some(pattern) = &args.pattern else {
        let mut named = args.topics.clone();
        named.sort();
        named.dedup();
        return Ok(named);
    };
    let all = client.admin().topics().await?.into_iter();
    let all = all.map(|topic| topic.name);
    let mut found: Vec<String> = all
        .filter(|name| !is_internal(name) && pattern.matches(name))
        .collect();
    if found.is_empty() && args.group.is_none() {
        bail!(
            "no topic matches {:?}; list all topics with `ropewalk topic list`",
            pattern.text()
        );
    }
    found.sort();
    Ok(found)
}

/// The matching records of all ranges, interleaved.
fn all(
    client: Client,
    ranges: Ranges,
    (filter, unreadable): (Option<String>, OnUnreadable),
    side_by_side: Option<usize>,
) -> Records {
    ranges
        .map(move |(topic, range)| {
            let filter = filter.clone().unwrap_or_default();
            let open = move |reader: ReaderBuilder| reader.filter(filter).on_unreadable(unreadable);
            let records = range::records(client.clone(), topic.to_string(), range, open);
            records
                .map_ok(move |record| (topic.clone(), record))
                .boxed()
        })
        .flatten_unordered(side_by_side)
        .boxed()
}

/// Prints until the records end, the requested count is reached, or the user interrupts. All three are
/// success.
async fn print(
    mut records: Records,
    args: &ConsumeArgs,
    out: &mut RecordPrinter,
    interrupts: &mut Interrupts,
) -> anyhow::Result<()> {
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let next = match records.next().now_or_never() {
            Some(next) => next,
            None => {
                out.flush()?;
                tokio::select! {
                    next = records.next() => next,
                    () = interrupts.next() => return Ok(()),
                }
            }
        };
        let Some(record) = next else { return Ok(()) };
        let (topic, record) = record?;
        out.print(&topic, &record)?;
        left -= 1;
    }
    Ok(())
}
