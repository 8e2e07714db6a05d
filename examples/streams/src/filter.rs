//! Throughput of reading a topic through a filter, compared with reading it without one.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ropewalk_client::{Client, Producer, Record};
use tokio::time::{Instant, timeout};

use crate::stage::{PATIENCE, Stage, say};

const TOPIC: &str = "filtered";
const PARTITIONS: u32 = 12;
/// Maximum number of records in flight while the topic is filled.
const UNDER_WAY: usize = 4_096;
/// A selective filter selects one record in this many.
const ONE_OF: u64 = 10;

/// Filters. Each selects one record in the given number.
const FILTERS: [(&str, u64); 5] = [
    ("", 1),
    ("true", 1),
    ("headers.region == 'eu'", ONE_OF),
    ("json.total < 1000 && json.region == 'eu'", ONE_OF),
    ("value.matches('\"region\":\"eu\"')", ONE_OF),
];

pub async fn run(stage: &Stage, rounds: u16, records: u64) -> anyhow::Result<()> {
    // Rounded down, so that the filters select exactly the expected numbers.
    let records = records / ONE_OF * ONE_OF;
    ensure!(records > 0, "--records must be {ONE_OF} at least");
    stage.create(TOPIC, PARTITIONS).await?;
    let producer = stage.client.producer(TOPIC).build().await?;
    let bytes = fill(&producer, records).await? / records;
    println!("one group reads {records} records of {bytes} bytes of JSON, {PARTITIONS} partitions");
    let mut times = vec![Vec::new(); FILTERS.len()];
    for round in 0..rounds {
        for (number, ((filter, one_of), times)) in FILTERS.iter().zip(&mut times).enumerate() {
            let client = stage.another().await?;
            let group = format!("filtered-{round}-{number}");
            let read = read(&client, &group, filter, records / one_of);
            let read = timeout(PATIENCE, read).await;
            times.push(read.with_context(|| format!("{filter:?} does not find all"))??);
        }
    }
    for ((filter, one_of), mut times) in FILTERS.iter().zip(times) {
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let name = match filter.is_empty() {
            true => "without a filter",
            false => filter,
        };
        let rate = records as f64 / median.as_secs_f64();
        let found = records / one_of;
        say(
            name,
            format!("{rate:.0} records/s looked at, {found} found, {median:.2?} in the median"),
        );
    }
    Ok(())
}

/// Publishes this many records. Returns the total size of their values in bytes.
async fn fill(producer: &Producer, records: u64) -> anyhow::Result<u64> {
    let mut waiting = FuturesUnordered::new();
    let mut bytes = 0;
    for number in 0..records {
        let region = match number.is_multiple_of(ONE_OF) {
            true => "eu",
            false => "elsewhere",
        };
        let total = number % 1_000;
        let value = format!(
            r#"{{"order":{number},"region":"{region}","total":{total},"items":[{{"id":"{:032x}"}}]}}"#,
            u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        );
        bytes += value.len() as u64;
        let record = Record::new().key(total.to_string()).value(value);
        waiting.push(producer.send(record.header("region", region)).await?);
        while waiting.len() > UNDER_WAY {
            waiting.next().await.transpose()?;
        }
    }
    while waiting.next().await.transpose()?.is_some() {}
    Ok(bytes)
}

/// Time that a new group needs to read this many selected records. Fails if the stream ends before.
async fn read(
    client: &Client,
    group: &str,
    filter: &str,
    expected: u64,
) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let builder = client.subscribe(group).topics([TOPIC]);
    let builder = match filter.is_empty() {
        true => builder,
        false => builder.filter(filter),
    };
    let mut found = builder.build().await?;
    for number in 0..expected {
        let next = found.next().await;
        let next = next.with_context(|| format!("the stream ended after {number} records"))?;
        next?.ack();
    }
    let took = begun.elapsed();
    found.close().await?;
    Ok(took)
}
