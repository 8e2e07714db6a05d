//! A compacted topic beside the first. It has a few keys that are overwritten repeatedly and deleted now and
//! then, and some that are written once and must stay for ever.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use ropewalk_client::{Cleanup, TopicSettings};
use tokio::time::sleep;

use super::producer::sent;
use super::publisher::WITHOUT_SEQUENCE;
use super::record::{self, Value};
use super::{Clients, until_done};

/// Not one of the numbered topics: readers of those expect every record.
const NAME: &str = "table";
/// Number of the topic in the history.
const NUMBER: u32 = u32::MAX;
const KEYS: u32 = 12;

/// Writes until told to stop.
pub async fn run(clients: &Clients) {
    let who = 8_000;
    let client = clients.connect(who).await;
    let mut random = SmallRng::seed_from_u64(clients.seed_of(who));
    let settings = TopicSettings::default()
        .segment_bytes(16 << 10)
        .cleanup(Cleanup::Compact)
        .delete_horizon_ms(5_000)
        .min_dirty_percent(10);
    let admin = client.admin();
    until_done("creating the table", || async {
        if admin.topic(NAME).await?.is_none() {
            admin.create_topic(NAME, 1, settings).await?;
        }
        Ok(())
    })
    .await;
    let mut number = 0;
    while clients.sending() {
        let name = (WITHOUT_SEQUENCE + 3, number);
        number += 1;
        let once = random.random_bool(0.1);
        let key = Some(match once {
            true => KEYS + number as u32,
            false => random.random_range(0..KEYS),
        });
        let value = match !once && random.random_bool(0.2) {
            true => Value::Tombstone,
            false => Value::Bytes(random.random_range(0..2_000)),
        };
        let made = record::make(name, key, value);
        sent(clients, name, NUMBER, key, made.content);
        if let Err(error) = client.publish(NAME, made.record).await {
            tracing::debug!(%error, "a row of the table was not written, or is not known to be");
        }
        let pause_ms = random.random_range(0..=2 * clients.plan.load.table_every_ms);
        sleep(Duration::from_millis(pause_ms)).await;
    }
}
