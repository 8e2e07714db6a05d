//! One producer. It sends records of all kinds, many of them in flight, and records each outcome. After a
//! while another producer replaces it.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use ropewalk_client::{Client, Compression, Error, Producer, RecordMetadata};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::record::{self, Value};
use super::settings::Producing;
use super::{Clients, MAIN, topic_name, until_done};
use crate::history::{Event, Place, RecordName};

/// Maximum number of records in flight.
const UNDER_WAY: usize = 4_096;
/// Distance between the numbers of two producers, so that each replacement has a number of its own.
const LIVES: u32 = 10_000;

/// Produces until told to stop, then waits for all answers.
pub async fn run(clients: &Clients, number: u32, style: &Producing) {
    let mut random = SmallRng::seed_from_u64(clients.seed_of(u64::from(number)));
    let client = clients.connect(u64::from(number)).await;
    let mut waiting = JoinSet::new();
    let mut life = 0;
    while clients.sending() {
        let producer = until_done("beginning to produce", || build(&client, style)).await;
        let mut sender = Sender {
            clients,
            style,
            producer,
            number: number * LIVES + life,
            sent: 0,
            room: Arc::new(Semaphore::new(UNDER_WAY)),
        };
        sender.live(&mut random, &mut waiting).await;
        // Some producers end without waiting for their answers; those outcomes are unknown.
        if random.random_bool(0.5) || !clients.sending() {
            let closed = sender.producer.close().await;
            tracing::debug!(?closed, number = sender.number, "the producer is closed");
        }
        life += 1;
    }
    while waiting.join_next().await.is_some() {}
}

async fn build(client: &Client, style: &Producing) -> Result<Producer, Error> {
    client
        .producer(&topic_name(MAIN))
        .linger(Duration::from_millis(style.linger_ms))
        .batch_bytes(style.batch_bytes)
        .in_flight(style.in_flight)
        .compression(Compression::from_number(style.compression).unwrap_or(Compression::None))
        .delivery_timeout(Duration::from_millis(style.delivery_timeout_ms))
        .build()
        .await
}

struct Sender<'a> {
    clients: &'a Clients,
    style: &'a Producing,
    producer: Producer,
    number: u32,
    sent: u64,
    room: Arc<Semaphore>,
}

impl Sender<'_> {
    async fn live(&mut self, random: &mut SmallRng, waiting: &mut JoinSet<()>) {
        let span = match self.style.replace_every_ms {
            0 => u64::MAX >> 20,
            every_ms => random.random_range(every_ms / 2..=every_ms * 3 / 2),
        };
        let end = Instant::now() + Duration::from_millis(span);
        while self.clients.sending() && Instant::now() < end {
            let burst = self.style.burst > 0 && random.random_bool(0.003);
            for _ in 0..if burst { self.style.burst } else { 1 } {
                self.send(random, waiting).await;
            }
            while waiting.try_join_next().is_some() {}
            let pause_ms = random.random_range(0..=2 * self.style.pause_ms);
            sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    async fn send(&mut self, random: &mut SmallRng, waiting: &mut JoinSet<()>) {
        let load = &self.clients.plan.load;
        let name = (self.number, self.sent);
        self.sent += 1;
        let key = random
            .random_bool(0.95)
            .then(|| random.random_range(0..load.keys));
        let value = self.value(random, key.is_some());
        let made = record::make(name, key, value);
        // A full producer waits: without the bound it would only fill its memory.
        let Ok(room) = self.room.clone().acquire_owned().await else {
            return;
        };
        sent(self.clients, name, MAIN, key, made.content);
        match self.producer.send(made.record).await {
            Ok(ticket) => {
                let clients = self.clients.clone();
                waiting.spawn_local(async move {
                    outcome(&clients, name, MAIN, ticket.await);
                    drop(room);
                });
            }
            Err(error) => outcome(self.clients, name, MAIN, Err(error)),
        }
    }

    fn value(&self, random: &mut SmallRng, keyed: bool) -> Value {
        let most = self.clients.plan.load.max_batch_bytes as usize;
        match random.random_range(0..300) {
            0..15 if keyed => Value::Tombstone,
            15..30 => Value::Bytes(0),
            // Up to the limit of a batch, and sometimes beyond it.
            30 => Value::Bytes(random.random_range(most * 3 / 4..=most * 21 / 20)),
            _ => Value::Bytes(self.style.value_bytes),
        }
    }
}

/// Records that a record is sent.
pub fn sent(clients: &Clients, name: RecordName, topic: u32, key: Option<u32>, content: u32) {
    clients.history.add(Event::Sent {
        name,
        topic,
        key,
        content,
    });
}

/// Records the outcome of a record.
pub fn outcome(
    clients: &Clients,
    name: RecordName,
    topic: u32,
    ended: Result<RecordMetadata, Error>,
) {
    clients.history.add(match ended {
        Ok(receipt) => Event::Acknowledged {
            name,
            place: Place {
                topic,
                partition: receipt.partition,
            },
            offset: receipt.offset,
        },
        Err(error) => Event::Failed {
            name,
            unknown: error.outcome_unknown(),
            error: error.to_string(),
        },
    });
}
