//! Publishes single records without a producer, either to any partition or to a named one.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::producer::{outcome, sent};
use super::record::{self, Value};
use super::{Clients, MAIN, operator, topic_name};

/// First number of senders that are not producers. Their records have no sequence number, so a send that was
/// given up may be appended after a later one.
pub const WITHOUT_SEQUENCE: u32 = 1_000_000;

/// Publishes until told to stop.
pub async fn run(clients: &Clients) {
    let who = 6_000;
    let mut random = SmallRng::seed_from_u64(clients.seed_of(who));
    operator::create_topic(clients, who).await;
    let client = clients.connect(who).await;
    let load = &clients.plan.load;
    let name = topic_name(MAIN);
    let mut number = 0;
    while clients.sending() {
        let record = (WITHOUT_SEQUENCE, number);
        number += 1;
        let key = random
            .random_bool(0.8)
            .then(|| random.random_range(0..load.keys));
        let mut made = record::make(record, key, Value::Bytes(50));
        if key.is_none() && random.random_bool(0.5) {
            let partition = random.random_range(0..load.most_partitions());
            made.record = made.record.partition(partition);
        }
        sent(clients, record, MAIN, key, made.content);
        outcome(
            clients,
            record,
            MAIN,
            client.publish(&name, made.record).await,
        );
        let pause_ms = random.random_range(0..=2 * load.publish_every_ms);
        sleep(Duration::from_millis(pause_ms)).await;
    }
}
