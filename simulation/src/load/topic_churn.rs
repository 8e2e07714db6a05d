//! Topics beside the first: they are created, written, altered, listed and deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use ropewalk_client::{Client, Error};
use ropewalk_proto::v1::TopicSettings;
use tokio::time::sleep;

use super::producer::{outcome, sent};
use super::publisher::WITHOUT_SEQUENCE;
use super::record::{self, Value};
use super::{Clients, topic_name, topic_number, tuner};
use crate::history::{Answer, Call};

/// Maximum number of such topics at a time.
const MOST: usize = 4;

/// Creates and changes topics until told to stop.
pub async fn run(clients: &Clients) {
    let who = 7_000;
    let mut gardener = TopicChurn {
        clients,
        client: clients.connect(who).await,
        other: clients.connect(who + 1).await,
        random: SmallRng::seed_from_u64(clients.seed_of(who)),
        topics: BTreeMap::new(),
        tuned: BTreeSet::new(),
        made: 0,
        sent: 0,
    };
    while clients.sending() {
        if let Err(error) = gardener.act().await {
            tracing::debug!(%error, "the churn of topics tries something else");
        }
        let pause_ms = gardener
            .random
            .random_range(0..=2 * clients.plan.load.garden_every_ms);
        sleep(Duration::from_millis(pause_ms)).await;
    }
}

struct TopicChurn<'a> {
    clients: &'a Clients,
    client: Client,
    /// Client that changes settings at the same time.
    other: Client,
    random: SmallRng,
    /// Topics that were created and not deleted, with their settings.
    topics: BTreeMap<u32, TopicSettings>,
    tuned: BTreeSet<u32>,
    made: u32,
    sent: u64,
}

impl TopicChurn<'_> {
    async fn act(&mut self) -> Result<(), Error> {
        let topics = self.topics.keys().copied();
        let any = topics.choose(&mut self.random);
        match (self.random.random_range(0..10), any) {
            (0..3, _) if self.topics.len() < MOST => self.create().await,
            (_, None) => self.create().await,
            (0..4, Some(topic)) => self.delete(topic).await,
            (4, Some(topic)) if self.tuned.insert(topic) => {
                tuner::tune(self.clients, [&self.client, &self.other], topic).await
            }
            (4, Some(topic)) => self.alter(topic).await,
            (5, _) => list(self.clients, &self.client).await.map(|_| ()),
            (_, Some(topic)) => self.publish(topic).await,
        }
    }

    async fn create(&mut self) -> Result<(), Error> {
        self.made += 1;
        let topic = self.made;
        let partitions = self.random.random_range(1..=2);
        let fewest = self.clients.plan.fewest_replicas();
        let settings = TopicSettings {
            replicas: self.random.random_range(1..=3).max(fewest),
            retention_ms: -1,
            retention_bytes: -1,
            ..TopicSettings::default()
        };
        let admin = self.client.admin();
        let name = topic_name(topic);
        let asked = admin.create_topic(&name, partitions, settings.into());
        let call = Call::CreateTopic {
            topic,
            partitions,
            settings,
        };
        self.clients.call(call, asked, |_| Answer::Done).await?;
        self.topics.insert(topic, settings);
        Ok(())
    }

    async fn alter(&mut self, topic: u32) -> Result<(), Error> {
        let Some(known) = self.topics.get_mut(&topic) else {
            return Ok(());
        };
        known.retention_bytes = self.random.random_range(1_000..100_000);
        let settings = *known;
        let set = [("retention_size", settings.retention_bytes.to_string())];
        let admin = self.client.admin();
        let name = topic_name(topic);
        let asked = admin.alter_topic(&name, set);
        let call = Call::AlterTopic { topic, settings };
        self.clients.call(call, asked, |_| Answer::Done).await?;
        Ok(())
    }

    async fn delete(&mut self, topic: u32) -> Result<(), Error> {
        // Whatever the outcome, the topic is not used again.
        self.topics.remove(&topic);
        let admin = self.client.admin();
        let name = topic_name(topic);
        let call = Call::DeleteTopic { topic };
        let asked = admin.delete_topic(&name);
        self.clients.call(call, asked, |()| Answer::Done).await
    }

    /// Publishes a few records, one after the other.
    async fn publish(&mut self, topic: u32) -> Result<(), Error> {
        let name = topic_name(topic);
        for _ in 0..self.random.random_range(1..5) {
            let record = (WITHOUT_SEQUENCE + 1, self.sent);
            self.sent += 1;
            let key = Some(self.random.random_range(0..5));
            let made = record::make(record, key, Value::Bytes(30));
            sent(self.clients, record, topic, key, made.content);
            let ended = self.client.publish(&name, made.record).await;
            outcome(self.clients, record, topic, ended);
        }
        Ok(())
    }
}

/// Numbers of the existing topics.
pub async fn list(clients: &Clients, client: &Client) -> Result<Vec<u32>, Error> {
    let admin = client.admin();
    let asked = async {
        let topics = admin.topics().await?;
        let numbers = topics.iter().filter_map(|topic| topic_number(&topic.name));
        Ok(numbers.collect())
    };
    let answer = |topics: &Vec<u32>| Answer::Topics(topics.clone());
    clients.call(Call::ListTopics, asked, answer).await
}
