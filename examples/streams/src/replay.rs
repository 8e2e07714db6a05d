//! Five groups read everything from the beginning while a producer keeps writing. The cluster's report of
//! their lag is compared with this program's own clock.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ropewalk_client::{Client, PartitionLag, Producer, Record};
use ropewalk_demo::flights::{self, Flight};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::stage::{PATIENCE, Stage, say};

const TOPIC: &str = "replay";
const PARTITIONS: u32 = 12;
const GROUPS: usize = 5;
/// Records per second of the producer meanwhile.
const RATE: u32 = 1_000;
/// Maximum number of records in flight without a fixed pace.
const UNDER_WAY: usize = 4_096;
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Times of each record's send and acknowledgement, by partition and offset.
type Times = Arc<Mutex<Vec<BTreeMap<u64, (Instant, Instant)>>>>;
/// The offset after the last record that a group received of each partition.
type Ends = Arc<Mutex<Vec<u64>>>;

pub async fn run(stage: &Stage, records: u64) -> anyhow::Result<()> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/flights-2013-01.csv.gz");
    let flights = Arc::new(flights::read(&data)?);
    stage.create(TOPIC, PARTITIONS).await?;
    let times: Times = Arc::new(Mutex::new(vec![BTreeMap::new(); PARTITIONS as usize]));
    let producer = stage.client.producer(TOPIC).build().await?;
    publish(&producer, &flights, records, None, &times).await?;

    let begun = Instant::now();
    let writing = {
        let (flights, times) = (flights.clone(), times.clone());
        let producer = stage.another().await?.producer(TOPIC).build().await?;
        let more = u64::from(RATE) * 20;
        tokio::spawn(async move { publish(&producer, &flights, more, Some(RATE), &times).await })
    };
    let mut readers = JoinSet::new();
    let mut groups = Vec::new();
    for number in 0..GROUPS {
        let (name, ends) = (format!("replay-{number}"), Ends::default());
        locked(&ends).resize(PARTITIONS as usize, 0);
        readers.spawn(read(stage.another().await?, name.clone(), ends.clone()));
        groups.push((name, ends));
    }
    let mut off = Off::default();
    let mut old_read = None;
    loop {
        if let Some(ended) = readers.try_join_next() {
            ended??;
        }
        for (name, _) in &groups {
            off.ask(stage, name, &times).await?;
        }
        let total = |ends: &Ends| locked(ends).iter().sum::<u64>();
        let least = groups.iter().map(|(_, ends)| total(ends)).min();
        if old_read.is_none() && least >= Some(records) {
            old_read = Some(begun.elapsed());
        }
        let acked: u64 = locked(&times).iter().map(|one| one.len() as u64).sum();
        if writing.is_finished() && least == Some(acked) {
            break;
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "the groups have read {least:?} of {acked} records"
        );
        sleep(ASK_EVERY).await;
    }
    writing.await??;
    let read = old_read.unwrap_or_default().as_secs_f64();
    println!("{GROUPS} groups read {records} records from the beginning, while {RATE}/s come");
    say(
        "all groups have them after",
        format!(
            "{read:.1} s, {:.0} records/s in all",
            records as f64 * GROUPS as f64 / read
        ),
    );
    say(
        "each got each record",
        "in order of each partition, none left out",
    );
    off.say();
    Ok(())
}

/// Reads as a group of one and stores its progress. Offsets have no gaps in a topic without compaction.
async fn read(client: Client, group: String, ends: Ends) -> anyhow::Result<()> {
    let mut records = client.subscribe(&group).topics([TOPIC]).build().await?;
    while let Some(delivery) = records.next().await {
        let delivery = delivery?;
        let (partition, offset) = (delivery.partition as usize, delivery.offset);
        if let Some(end) = locked(&ends).get_mut(partition) {
            ensure!(
                offset <= *end,
                "group {group} was given offset {offset} of partition {partition} after {end}"
            );
            *end = (*end).max(offset + 1);
        }
        delivery.ack();
    }
    Ok(())
}

async fn publish(
    producer: &Producer,
    flights: &[Flight],
    records: u64,
    rate: Option<u32>,
    times: &Times,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut waiting = FuturesUnordered::new();
    let mut all = flights.iter().cycle();
    for number in 0..records {
        if let (Some(rate), Ok(number)) = (rate, u32::try_from(number)) {
            sleep_until(begun + Duration::from_secs(1) * number / rate).await;
        }
        let Some(flight) = all.next() else { break };
        let mut record = Record::new().value(flight.value.clone());
        if let Some(key) = &flight.key {
            record = record.key(key.clone());
        }
        let sent = Instant::now();
        let ticket = producer.send(record).await?;
        waiting.push(async move { (sent, ticket.await, Instant::now()) });
        while waiting.len() > UNDER_WAY {
            note(waiting.next().await, times)?;
        }
    }
    while !waiting.is_empty() {
        note(waiting.next().await, times)?;
    }
    Ok(())
}

type Acknowledged = (
    Instant,
    ropewalk_client::Result<ropewalk_client::RecordMetadata>,
    Instant,
);

fn note(acknowledged: Option<Acknowledged>, times: &Times) -> anyhow::Result<()> {
    let Some((sent, receipt, at)) = acknowledged else {
        return Ok(());
    };
    let receipt = receipt?;
    if let Some(partition) = locked(times).get_mut(receipt.partition as usize) {
        partition.insert(receipt.offset, (sent, at));
    }
    Ok(())
}

/// Difference between the reported lag and the lag by this program's clock.
#[derive(Debug, Default)]
struct Off {
    asked: u64,
    most: Duration,
    /// The longest reported lag.
    longest: Duration,
}

impl Off {
    async fn ask(&mut self, stage: &Stage, group: &str, times: &Times) -> anyhow::Result<()> {
        let before = Instant::now();
        let Ok(lags) = stage.client.admin().group_lag(group).await else {
            // The group has not begun.
            return Ok(());
        };
        let after = Instant::now();
        for lag in lags {
            self.compare(&lag, (before, after), times);
        }
        Ok(())
    }

    /// Compares one reported lag. The first uncommitted record was appended between its send and its
    /// acknowledgement. The leader read its clock between the request and the answer.
    fn compare(&mut self, lag: &PartitionLag, (before, after): (Instant, Instant), times: &Times) {
        let times = locked(times);
        let first = lag.committed.unwrap_or(0);
        let partition = times.get(lag.partition as usize);
        let Some((sent, acknowledged)) = partition.and_then(|one| one.get(&first)) else {
            return;
        };
        if first >= lag.high_watermark || lag.error.is_some() {
            return;
        }
        let told = Duration::from_millis(lag.lag_ms.unsigned_abs());
        let least = before.saturating_duration_since(*acknowledged);
        let most = after.saturating_duration_since(*sent);
        let off = least.saturating_sub(told).max(told.saturating_sub(most));
        self.asked += 1;
        self.most = self.most.max(off);
        self.longest = self.longest.max(told);
    }

    fn say(&self) {
        say(
            "the lag that is told",
            format!(
                "{} ms off at most, of {} answers with a lag of up to {:.1} s",
                self.most.as_millis(),
                self.asked,
                self.longest.as_secs_f64()
            ),
        );
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
