//! `ropewalk consume`: prints records. Those of one partition come in its order; partitions are read
//! side by side, and their records mixed as they arrive.

use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use ropewalk_client::{Client, ConsumedRecord, ReaderBuilder, Unreadable};
use tokio::signal::ctrl_c;

use super::record::{HeaderRow, RecordRow, Text};
use super::span::{self, Span};
use super::{Context, growing, subscribe};
use crate::args::ConsumeArgs;
use crate::output::Stream;

/// Partitions read side by side; of those that end, one more begins as one is done.
const SIDE_BY_SIDE: usize = 32;

type Records = BoxStream<'static, anyhow::Result<ConsumedRecord>>;

pub async fn run(context: Context, args: ConsumeArgs) -> anyhow::Result<()> {
    if let Some(group) = &args.group {
        return subscribe::run(&context, &args, group).await;
    }
    let client = context.client().await?;
    let spans = span::of(&client, &args).await?;
    let partitions = u32::try_from(spans.len()).unwrap_or(u32::MAX);
    let spans = stream::iter(spans);
    let spans = match args.follow && args.partition.is_none() {
        true => {
            let new = growing::new_partitions(client.clone(), args.topic.clone(), partitions);
            spans.chain(new).boxed()
        }
        false => spans.boxed(),
    };
    let side_by_side = (!args.follow).then_some(SIDE_BY_SIDE);
    let filter = args.filter.clone();
    let records = all(
        client,
        args.topic.clone(),
        spans,
        (filter, args.unreadable()),
        side_by_side,
    );
    let mut out = context.output.stream();
    let printed = print(records, &args, &mut out).await;
    let ended = out.end();
    printed?;
    Ok(ended?)
}

/// The records of all spans that a filter finds, mixed.
fn all(
    client: Client,
    topic: String,
    spans: BoxStream<'static, Span>,
    (filter, unreadable): (Option<String>, Unreadable),
    side_by_side: Option<usize>,
) -> Records {
    spans
        .map(move |span| {
            let filter = filter.clone().unwrap_or_default();
            let open = move |reader: ReaderBuilder| reader.filter(filter).on_unreadable(unreadable);
            span::records(client.clone(), topic.clone(), span, open)
        })
        .flatten_unordered(side_by_side)
        .boxed()
}

/// Prints until the records, the count, or the user's patience ends. All three are good ends.
async fn print(mut records: Records, args: &ConsumeArgs, out: &mut Stream) -> anyhow::Result<()> {
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut interrupted = Box::pin(ctrl_c());
    while left > 0 {
        let next = match records.next().now_or_never() {
            Some(next) => next,
            None => {
                out.flush()?;
                tokio::select! {
                    next = records.next() => next,
                    Ok(()) = &mut interrupted => return Ok(()),
                }
            }
        };
        let Some(record) = next else { return Ok(()) };
        row(&args.topic, &record?, out)?;
        left -= 1;
    }
    Ok(())
}

/// Prints one record.
pub fn row(topic: &str, record: &ConsumedRecord, out: &mut Stream) -> std::io::Result<()> {
    let headers = record.headers.iter();
    let row = RecordRow {
        topic,
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key.as_deref().map(Text),
        value: record.value.as_deref().map(Text),
        headers: headers
            .map(|header| HeaderRow {
                key: &header.key,
                value: header.value.as_deref().map(Text),
            })
            .collect(),
    };
    out.row(&row, RecordRow::write_line)
}
