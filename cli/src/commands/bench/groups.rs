//! Reads all records of a topic through consumer groups. Each group reads everything, and commits as it
//! reads.

use futures_util::StreamExt;
use rand::TryRngCore;
use rand::rngs::OsRng;
use ropewalk_client::{Client, Offset};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::report::{Report, Tally};
use super::sum_up;
use crate::args::BenchArgs;
use crate::commands::range;

/// Reads from the beginning to the end offsets at the start, once per group, or until the time is over.
pub async fn run(
    client: &Client,
    args: &BenchArgs,
    groups: u16,
    stop: &CancellationToken,
) -> anyhow::Result<(Report, Option<String>)> {
    let ranges = range::everything(client, &args.topic).await?;
    let held = ranges
        .iter()
        .map(|range| range.end.unwrap_or(0) - range.start);
    let held: u64 = held.sum();
    let run = OsRng.try_next_u64()?;
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for number in 0..groups {
        let group = format!("bench-{run:x}-{number}");
        let (client, topic, stop) = (client.clone(), args.topic.clone(), stop.clone());
        let end = begun + args.duration;
        running.spawn(async move {
            let tally = read(&client, &topic, &group, held, end, stop).await;
            let deleted = client.admin().delete_group(&group).await;
            let (tally, ended) = tally?;
            deleted?;
            anyhow::Ok((tally, ended))
        });
    }
    let mut tallies = Vec::new();
    let mut last = begun;
    while let Some(read) = running.join_next().await {
        let (tally, ended) = read??;
        last = last.max(ended);
        tallies.push(tally);
    }
    sum_up(tallies, last - begun)
}

/// Tally of one group, and the time at which it was done.
async fn read(
    client: &Client,
    topic: &str,
    group: &str,
    held: u64,
    end: Instant,
    stop: CancellationToken,
) -> anyhow::Result<(Tally, Instant)> {
    let mut tally = Tally::new()?;
    let subscription = client.subscribe(group).topics([topic]);
    let mut subscription = subscription.from(Offset::Beginning).build().await?;
    let mut over = Box::pin(sleep_until(end));
    while tally.records < held {
        tokio::select! {
            next = subscription.next() => match next {
                Some(Ok(delivery)) => {
                    let key = delivery.key.as_ref().map_or(0, |key| key.len());
                    let value = delivery.value.as_ref().map_or(0, |value| value.len());
                    tally.passed(1, (key + value) as u64);
                    delivery.ack();
                }
                Some(Err(error)) => tally.failed(&error),
                None => break,
            },
            () = &mut over => break,
            () = stop.cancelled() => break,
        }
    }
    let ended = Instant::now();
    subscription.close().await?;
    Ok((tally, ended))
}
