//! Reads all records of a topic at full speed.

use futures_util::StreamExt;
use futures_util::stream;
use ropewalk_client::Client;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::report::{Report, Tally};
use super::sum_up;
use crate::args::BenchArgs;
use crate::commands::range::{self, OffsetRange};

/// Reads from the beginning to the end offsets at the start, or until the time is over.
pub async fn run(
    client: &Client,
    args: &BenchArgs,
    stop: &CancellationToken,
) -> anyhow::Result<(Report, Option<String>)> {
    let ranges = range::everything(client, &args.topic).await?;
    let begun = Instant::now();
    let readers = usize::from(args.producers);
    let mut running = JoinSet::new();
    for reader in 0..readers {
        let share: Vec<OffsetRange> = ranges
            .iter()
            .copied()
            .skip(reader)
            .step_by(readers)
            .collect();
        let (client, topic) = (client.clone(), args.topic.clone());
        running.spawn(read(
            client,
            topic,
            share,
            begun + args.duration,
            stop.clone(),
        ));
    }
    let mut tallies = Vec::new();
    while let Some(tally) = running.join_next().await {
        tallies.push(tally??);
    }
    sum_up(tallies, begun.elapsed())
}

async fn read(
    client: Client,
    topic: String,
    share: Vec<OffsetRange>,
    end: Instant,
    stop: CancellationToken,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::new()?;
    let open = |range| range::records(client.clone(), topic.clone(), range, |reader| reader);
    let mut records = stream::iter(share).map(open).flatten_unordered(None);
    let mut over = Box::pin(sleep_until(end));
    loop {
        tokio::select! {
            next = records.next() => match next {
                Some(Ok(record)) => {
                    let key = record.key.as_ref().map_or(0, |key| key.len());
                    let value = record.value.as_ref().map_or(0, |value| value.len());
                    tally.passed(1, (key + value) as u64);
                }
                Some(Err(error)) => tally.failed(&error),
                None => break,
            },
            () = &mut over => break,
            () = stop.cancelled() => break,
        }
    }
    Ok(tally)
}
