//! A steady, light load. Measures from the intended send time of a record to its acknowledgement, and to its
//! arrival at a reader in this process.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use rand::TryRngCore;
use rand::rngs::OsRng;
use ropewalk_client::Client;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::produce;
use super::report::{Report, Tally};
use super::stamp::{STAMP_BYTES, Stamp};
use crate::args::BenchArgs;
use crate::commands::range::{self, OffsetRange};
use crate::exit::usage;
use crate::parse::Rate;

/// Default rate: far below saturation.
const RATE: Rate = Rate(500.0);
/// Time limit for the last records to arrive at the reader.
const ARRIVE_WITHIN: Duration = Duration::from_secs(5);

/// Publishes at a steady rate while a reader follows every partition from its end.
pub async fn run(
    client: &Client,
    args: &BenchArgs,
    stop: &CancellationToken,
) -> anyhow::Result<(Report, Option<String>)> {
    if args.record_size < STAMP_BYTES as u64 {
        return Err(usage(format!(
            "--record-size must be at least {STAMP_BYTES} bytes, for the send time of each record"
        )));
    }
    let stamp = Stamp::new(OsRng.try_next_u64()?, Instant::now());
    let mut ranges = range::everything(client, &args.topic).await?;
    for range in &mut ranges {
        range.start = range.end.take().unwrap_or(range.start);
    }
    let (expected, expects) = watch::channel(None);
    let following = tokio::spawn(follow(
        client.clone(),
        args.topic.clone(),
        ranges,
        stamp,
        expects,
    ));

    let args = BenchArgs {
        rate: Some(args.rate.unwrap_or(RATE)),
        ..args.clone()
    };
    let published = produce::run(client, &args, stop, Some(stamp)).await;
    // The reader must end even if publishing failed.
    expected.send_replace(Some(
        published.as_ref().map_or(0, |(report, _)| report.records),
    ));
    let arrived = following.await??;
    let (mut report, first_error) = published?;
    report.end_to_end_ms = arrived.quantiles();
    Ok((report, first_error))
}

/// Reads until all acknowledged records of this run have arrived.
async fn follow(
    client: Client,
    topic: String,
    ranges: Vec<OffsetRange>,
    stamp: Stamp,
    mut expects: watch::Receiver<Option<u64>>,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::new()?;
    let open = move |range| range::records(client.clone(), topic.clone(), range, |reader| reader);
    let mut records: BoxStream<'_, _> = stream::iter(ranges)
        .map(open)
        .flatten_unordered(None)
        .boxed();
    let published = loop {
        tokio::select! {
            Some(record) = records.next() => count(&mut tally, stamp, record?),
            changed = expects.wait_for(Option::is_some) => break changed.ok().and_then(|told| *told),
            else => break None,
        }
    };
    let rest = async {
        while tally.records < published.unwrap_or(0) {
            let Some(record) = records.next().await else {
                break;
            };
            count(&mut tally, stamp, record?);
        }
        anyhow::Ok(())
    };
    match timeout(ARRIVE_WITHIN, rest).await {
        Ok(done) => done?,
        Err(_) => {
            tracing::warn!(
                "reader did not receive all acknowledged records within {ARRIVE_WITHIN:?}"
            )
        }
    }
    Ok(tally)
}

fn count(tally: &mut Tally, stamp: Stamp, record: ropewalk_client::ConsumedRecord) {
    let value = record.value.unwrap_or_default();
    if let Some(due) = stamp.read(&value) {
        tally.took(value.len() as u64, due.elapsed());
    }
}
