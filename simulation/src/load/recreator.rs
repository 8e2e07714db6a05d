//! A topic that is deleted and created again under its name while producers and readers use it. The new one
//! has fewer, as many or more partitions. Each life of the name is another topic.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use ropewalk_client::{Client, Error, ErrorCode, Offset, Producer, RecordMetadata};
use ropewalk_proto::v1::TopicSettings;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::producer::sent;
use super::reader::{found, got};
use super::record::{self, Value};
use super::{AGAIN, Clients, latecomer, until_done};
use crate::history::{Event, Place, RecordName};

/// The name of the topic.
pub const NAME: &str = "recreated";
/// Number of the topic if its life does not matter. With the topic id added, it is the number of one life.
pub const RECREATED: u32 = 10_000_000;
/// Maximum number of partitions.
const MOST: u32 = 8;
/// Distinct keys.
const KEYS: u32 = 12;
/// First number of its readers.
const READERS: u32 = 6_000_000;
/// Number of the producer that outlives all lives; those of one life each have the numbers after it.
const PRODUCERS: u32 = 9_000_000;
/// First seed of its clients.
const SEEDS: u64 = 40_000;
const VALUE_BYTES: usize = 30;

/// Deletes and creates the topic, writes and reads it, until told to stop.
pub async fn run(clients: &Clients) {
    let client = clients.connect(SEEDS).await;
    let recreator = Recreator { clients, client };
    let mut random = recreator.random(0);
    let partitions = random.random_range(1..=MOST / 2);
    recreator.create(&mut random, partitions).await;
    let builder = || recreator.producer().build();
    let producer = until_done("beginning to produce", builder).await;
    tokio::join!(
        recreator.recreate(random, partitions),
        recreator.produce(&producer),
        recreator.read(0),
        recreator.read(1),
    );
    recreator.finish(&producer).await;
}

/// The partition of one life.
pub fn place(topic_id: u64, partition: u32) -> Place {
    let topic = RECREATED.saturating_add(u32::try_from(topic_id).unwrap_or(u32::MAX));
    Place { topic, partition }
}

struct Recreator<'a> {
    clients: &'a Clients,
    client: Client,
}

impl Recreator<'_> {
    fn random(&self, who: u64) -> SmallRng {
        SmallRng::seed_from_u64(self.clients.seed_of(SEEDS + who))
    }

    fn producer(&self) -> ropewalk_client::ProducerBuilder {
        let builder = self.client.producer(NAME);
        builder
            .linger(Duration::from_millis(5))
            .delivery_timeout(Duration::from_secs(5))
    }

    async fn recreate(&self, mut random: SmallRng, mut partitions: u32) {
        let mut life = 0;
        while self.clients.sending() {
            let every_ms = self.clients.plan.load.recreate_every_ms;
            sleep(Duration::from_millis(random.random_range(0..=2 * every_ms))).await;
            let admin = self.client.admin();
            let before = until_done("looking at the topic", || admin.topic(NAME)).await;
            until_is(ErrorCode::UnknownTopic, || admin.delete_topic(NAME)).await;
            if random.random_bool(0.5) {
                sleep(Duration::from_millis(random.random_range(0..1_000))).await;
            }
            partitions = match random.random_range(0..3) {
                0 => partitions.div_ceil(2),
                1 => partitions,
                _ => (partitions + random.random_range(1..=4)).min(MOST),
            };
            self.create(&mut random, partitions).await;
            life += 1;
            if let Some(before) = before {
                latecomer::visit(self.clients, before.topic_id, &mut random, life).await;
            }
            self.come(life).await;
        }
    }

    async fn create(&self, random: &mut SmallRng, partitions: u32) {
        let fewest = self.clients.plan.fewest_replicas();
        let settings = TopicSettings {
            replicas: random.random_range(1..=3).max(fewest),
            retention_ms: -1,
            retention_bytes: -1,
            ..TopicSettings::default()
        };
        let admin = self.client.admin();
        let create = || async {
            let created = admin.create_topic(NAME, partitions, settings.into()).await;
            created.map(|_| ())
        };
        until_is(ErrorCode::TopicExists, create).await;
    }

    /// Runs a producer that does not know earlier lives. It writes one record of each key.
    async fn come(&self, life: u32) {
        let Ok(producer) = self.producer().build().await else {
            return;
        };
        let records = (0..KEYS).map(|key| {
            let name = (PRODUCERS + life, u64::from(key));
            send(self.clients, &producer, name, key)
        });
        // Their outcomes do not matter here.
        join_all(records).await;
    }

    /// Runs one producer through all lives.
    async fn produce(&self, producer: &Producer) {
        let mut random = self.random(1);
        let mut under_way = JoinSet::new();
        let mut number = 0;
        while self.clients.sending() {
            let key = random.random_range(0..KEYS);
            let name = (PRODUCERS, number);
            number += 1;
            let (clients, producer) = (self.clients.clone(), producer.clone());
            under_way.spawn_local(async move {
                let _ = send(&clients, &producer, name, key).await;
            });
            while under_way.try_join_next().is_some() {}
            sleep(Duration::from_millis(random.random_range(0..=60))).await;
        }
        while under_way.join_next().await.is_some() {}
    }

    /// Reads one partition after another, each from its beginning or from the last reader's position.
    async fn read(&self, number: u32) {
        let mut random = self.random(2 + u64::from(number));
        let mut left_at: Option<(Place, u64, u64)> = None;
        while self.clients.sending() {
            let reader = match left_at.take() {
                Some((place, topic_id, position)) => {
                    let reader = self.client.reader(NAME, place.partition);
                    let reader = reader.topic_id(topic_id).from(Offset::At(position));
                    reader.build().await
                }
                None => {
                    let partition = random.random_range(0..MOST / 2);
                    self.client.reader(NAME, partition).build().await
                }
            };
            let Ok(mut reader) = reader else {
                sleep(Duration::from_millis(random.random_range(0..300))).await;
                continue;
            };
            let place = place(reader.topic_id(), reader.partition());
            self.clients.history.add(Event::Began {
                reader: READERS + number,
                place,
                offset: reader.position(),
            });
            let stay = Duration::from_millis(random.random_range(0..8_000));
            let end = Instant::now() + stay;
            let ended = loop {
                match timeout_at(end, reader.next()).await {
                    Ok(Some(Ok(record))) => {
                        got(self.clients, READERS + number, place, found(&record));
                    }
                    Ok(Some(Err(error))) => break Some(error),
                    Ok(None) | Err(_) => break None,
                }
            };
            match ended {
                Some(error) => tracing::debug!(%error, %place, "the reader ended"),
                None => left_at = Some((place, reader.topic_id(), reader.position())),
            }
        }
    }

    /// Writes to every key with the producer that outlived all lives, once nothing disturbs it.
    async fn finish(&self, producer: &Producer) {
        let mut number = 0;
        for key in 0..KEYS {
            until_done("writing to every key in the end", || {
                number += 1;
                send(self.clients, producer, (PRODUCERS - 1, number), key)
            })
            .await;
        }
    }
}

async fn send(
    clients: &Clients,
    producer: &Producer,
    name: RecordName,
    key: u32,
) -> Result<(), Error> {
    let made = record::make(name, Some(key), Value::Bytes(VALUE_BYTES));
    sent(clients, name, RECREATED, Some(key), made.content);
    let ended = async { producer.send(made.record).await?.await };
    ended
        .await
        .map(|_: RecordMetadata| ())
        .inspect_err(|error| failed(clients, name, error.outcome_unknown(), error))
}

/// Records that a record was not acknowledged. Acknowledgements are not recorded, since they do not name the
/// topic's life.
pub fn failed(clients: &Clients, name: RecordName, unknown: bool, error: &dyn std::fmt::Display) {
    clients.history.add(Event::Failed {
        name,
        unknown,
        error: error.to_string(),
    });
}

/// Repeats an attempt until it succeeds, or the answer shows that an earlier one did.
async fn until_is<F>(done: ErrorCode, mut attempt: impl FnMut() -> F)
where
    F: Future<Output = Result<(), Error>>,
{
    loop {
        match attempt().await {
            Err(error) if error.code() != Some(done) => {
                tracing::debug!(%error, "not yet");
                sleep(AGAIN).await;
            }
            _ => return,
        }
    }
}
