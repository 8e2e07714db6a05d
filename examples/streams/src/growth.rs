//! A topic grows from 3 to 12 partitions while ten producers write to it and five consumers read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::FuturesUnordered;
use ropewalk_client::{Client, Producer};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use crate::order::{Order, record};
use crate::stage::{LOOK_EVERY, PATIENCE, Stage, say, spread};

const PRODUCERS: u32 = 10;
const CONSUMERS: usize = 5;
const FROM: u32 = 3;
const TO: u32 = 12;
/// Keys of each producer, and the interval at which each is written. The interval is the resolution of the
/// measured silence.
const KEYS: u32 = 20;
const KEY_EVERY: Duration = Duration::from_millis(40);
/// Time before and after the growth.
const STEADY: Duration = Duration::from_secs(3);

/// Longest time between two acknowledgements of a key, with their number.
type Silences = BTreeMap<u32, (Duration, u64)>;

pub async fn run(stage: &Stage, rounds: u16) -> anyhow::Result<()> {
    let (mut longest, mut usual, mut grown) = (Vec::new(), Vec::new(), Vec::new());
    let (mut records, mut again) = (0, 0);
    for round in 0..rounds {
        let outcome = one(stage, &format!("growing-{round}")).await?;
        let mut silences: Vec<Duration> = outcome.silences.values().map(|one| one.0).collect();
        silences.sort_unstable();
        usual.extend(silences.get(silences.len() / 2));
        longest.extend(silences.last());
        grown.push(outcome.grown);
        records += outcome.silences.values().map(|one| one.1).sum::<u64>();
        again += outcome.again;
    }
    let keys = PRODUCERS * KEYS;
    println!("a topic of {FROM} partitions grows to {TO}, {rounds} times, with {keys} keys each");
    say("grown after", spread(grown));
    say("silence of the median key", spread(usual));
    say("silence of the slowest key", spread(longest));
    say(
        "processed in order",
        format!("{records} records, {again} of them more than once, none left out"),
    );
    Ok(())
}

struct Outcome {
    silences: Silences,
    grown: Duration,
    again: u64,
}

async fn one(stage: &Stage, topic: &str) -> anyhow::Result<Outcome> {
    stage.create(topic, FROM).await?;
    let order = Arc::new(Mutex::new(Order::default()));
    let mut consumers = JoinSet::new();
    for _ in 0..CONSUMERS {
        consumers.spawn(consume(
            stage.another().await?,
            topic.to_owned(),
            order.clone(),
        ));
    }
    let (stop, stopped) = watch::channel(false);
    let mut producers = Vec::new();
    for number in 0..PRODUCERS {
        let producer = stage.another().await?.producer(topic).build().await?;
        let keys = number * KEYS..(number + 1) * KEYS;
        producers.push(tokio::spawn(produce(producer, keys, stopped.clone())));
    }
    sleep(STEADY).await;
    let grown = grow(stage, topic).await?;
    sleep(STEADY).await;
    stop.send_replace(true);
    let mut silences = Silences::new();
    for produced in try_join_all(producers).await? {
        silences.extend(produced?);
    }
    let begun = Instant::now();
    while silences
        .iter()
        .any(|(key, (_, sent))| locked(&order).of(*key) < *sent)
    {
        if let Some(ended) = consumers.try_join_next() {
            ended??;
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "not all of topic {topic} is processed"
        );
        sleep(LOOK_EVERY).await;
    }
    let again = locked(&order).again;
    Ok(Outcome {
        silences,
        grown,
        again,
    })
}

/// Time until keys are routed to the new partitions.
async fn grow(stage: &Stage, topic: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    stage.client.admin().grow_topic(topic, TO).await?;
    loop {
        let topics = stage.client.admin().topics().await?;
        let found = topics.iter().find(|found| found.name == topic);
        if found.is_some_and(|found| found.ring_partitions == TO) {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < PATIENCE, "topic {topic} does not grow");
        sleep(LOOK_EVERY).await;
    }
}

async fn consume(client: Client, topic: String, order: Arc<Mutex<Order>>) -> anyhow::Result<()> {
    let mut records = client.subscribe(&topic).topics([&topic]).build().await?;
    while let Some(delivery) = records.next().await {
        let delivery = delivery?;
        locked(&order).processed(delivery.record())?;
        delivery.ack();
    }
    Ok(())
}

fn locked(order: &Mutex<Order>) -> MutexGuard<'_, Order> {
    order.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes each of its keys at a steady pace until it is told to stop.
async fn produce(
    producer: Producer,
    keys: std::ops::Range<u32>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<Silences> {
    let begun = Instant::now();
    let mut last: BTreeMap<u32, Instant> = keys.clone().map(|key| (key, begun)).collect();
    let mut silences = Silences::new();
    let mut waiting = FuturesUnordered::new();
    let mut due = interval(KEY_EVERY / KEYS);
    let mut sent = 0_u32;
    let mut open = true;
    while open || !waiting.is_empty() {
        tokio::select! {
            _ = due.tick(), if open => {
                let (key, number) = (keys.start + sent % KEYS, u64::from(sent / KEYS) + 1);
                sent += 1;
                let ticket = producer.send(record(key, number)).await?;
                waiting.push(async move { (key, ticket.await) });
            }
            Some((key, receipt)) = waiting.next() => {
                receipt?;
                let now = Instant::now();
                let before = last.insert(key, now).unwrap_or(begun);
                let (longest, count) = silences.entry(key).or_default();
                // The first acknowledgements wait for connections.
                if *count > 0 {
                    *longest = now.duration_since(before).max(*longest);
                }
                *count += 1;
            }
            _ = stop.changed(), if open => {
                open = false;
                producer.flush().await?;
            }
        }
    }
    producer.close().await?;
    Ok(silences)
}
