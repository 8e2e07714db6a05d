//! Publishing under load, and the time to each acknowledgement.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use ropewalk_client::{Client, Error, Producer, Record};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::report::{Report, Tally};
use super::stamp::Stamp;
use super::sum_up;
use crate::args::BenchArgs;

/// Number of failures after which a producer gives up: its measurement is meaningless.
const FAILURES: u64 = 1_000;

/// Load of one producer.
struct Load {
    producer: Producer,
    pace: Pace,
    in_flight: usize,
    keys: Option<u64>,
    value: Bytes,
    random: SmallRng,
    stop: CancellationToken,
    /// Stamp with the due time for the values, if a reader measures by it.
    stamp: Option<Stamp>,
}

/// Publishes for the requested time. Returns the report, and the first error.
pub async fn run(
    client: &Client,
    args: &BenchArgs,
    stop: &CancellationToken,
    stamp: Option<Stamp>,
) -> anyhow::Result<(Report, Option<String>)> {
    let mut loads = Vec::new();
    for number in 0..args.producers {
        loads.push(load(client, args, stop, stamp, number).await?);
    }
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for mut load in loads {
        let rate = args.rate.map(|rate| rate.0 / f64::from(args.producers));
        load.pace = Pace::new(begun, begun + args.duration, rate);
        running.spawn(publish(load));
    }
    let mut tallies = Vec::new();
    while let Some(tally) = running.join_next().await {
        tallies.push(tally??);
    }
    sum_up(tallies, begun.elapsed())
}

async fn load(
    client: &Client,
    args: &BenchArgs,
    stop: &CancellationToken,
    stamp: Option<Stamp>,
    number: u16,
) -> anyhow::Result<Load> {
    // Repeatable, and different for each producer. Random bytes do not compress, so compression can't flatter
    // the result.
    let mut random = SmallRng::seed_from_u64(u64::from(number));
    let mut value = vec![0; usize::try_from(args.record_size)?];
    random.fill_bytes(&mut value);
    let now = Instant::now();
    Ok(Load {
        producer: client.producer(&args.topic).build().await?,
        pace: Pace::new(now, now, None),
        in_flight: usize::try_from(args.in_flight)?,
        keys: args.keys,
        value: value.into(),
        random,
        stop: stop.clone(),
        stamp,
    })
}

/// Outcome of a record, with its bytes and the time at which it was due.
type Acked = (u64, Instant, Result<(), Error>);

async fn publish(mut load: Load) -> anyhow::Result<Tally> {
    let mut tally = Tally::new()?;
    let mut acks = FuturesUnordered::new();
    let mut sending = true;
    loop {
        tokio::select! {
            Some(acked) = acks.next() => count(&mut tally, acked),
            () = load.stop.cancelled(), if sending => sending = false,
            due = load.pace.next(), if sending && acks.len() < load.in_flight => {
                let Some(due) = due else { sending = false; continue };
                let (record, bytes) = record(&mut load, due);
                let mut send = Box::pin(load.producer.send(record));
                // Acknowledgements are taken as they arrive, even while there is no room to send.
                let ticket = loop {
                    tokio::select! {
                        ticket = &mut send => break ticket,
                        Some(acked) = acks.next() => count(&mut tally, acked),
                    }
                };
                match ticket {
                    Ok(ticket) => acks.push(async move { (bytes, due, ticket.await.map(|_| ())) }),
                    Err(error) => tally.failed(&error),
                }
            }
            else => break,
        }
        sending &= tally.errors < FAILURES;
    }
    Ok(tally)
}

fn count(tally: &mut Tally, (bytes, due, result): Acked) {
    match result {
        Ok(()) => tally.took(bytes, due.elapsed()),
        Err(error) => tally.failed(&error),
    }
}

fn record(load: &mut Load, due: Instant) -> (Record, u64) {
    let value = match &load.stamp {
        Some(stamp) => stamp.on(&load.value, due),
        None => load.value.clone(),
    };
    let mut bytes = value.len() as u64;
    let mut record = Record::new().value(value);
    if let Some(keys) = load.keys {
        let key = format!("key-{}", load.random.random_range(0..keys));
        bytes += key.len() as u64;
        record = record.key(key);
    }
    (record, bytes)
}
