//! Readers, one per partition. Each stores its position and resumes from it after an error, and now and then
//! without a reason.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ropewalk_client::{Client, ConsumedRecord, Offset};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::history::Name;

/// Number of records between two stored positions.
const NOTED_EVERY: u64 = 50;
/// Pause after an error.
const REST: Duration = Duration::from_millis(300);
/// Maximum lifetime of a reader, in ms.
const LIFE_MS: u64 = 8_000;

/// Records that one reader read, by offset.
pub type Seen = BTreeMap<u64, Name>;

/// Reads a partition up to `end`, which is set once it is known. Returns the records read and the number of
/// the reader's lives.
pub async fn follow(
    client: Client,
    topic: String,
    partition: u32,
    seed: u64,
    mut end: watch::Receiver<Option<u64>>,
) -> anyhow::Result<(Seen, u64)> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut seen = Seen::new();
    let mut noted = 0;
    let mut lives = 0;
    loop {
        lives += 1;
        let reader = client
            .reader(&topic, partition)
            .from(Offset::At(noted))
            .build();
        let Ok(mut reader) = reader.await else {
            sleep(REST).await;
            continue;
        };
        let until = Instant::now() + Duration::from_millis(random.random_range(500..LIFE_MS));
        loop {
            if end.borrow().is_some_and(|end| noted >= end) {
                return Ok((seen, lives));
            }
            let next = tokio::select! {
                next = reader.next() => next,
                () = tokio::time::sleep_until(until) => break,
                changed = end.changed() => {
                    changed.context("the run has ended before this reader")?;
                    continue;
                }
            };
            let Some(Ok(record)) = next else {
                sleep(REST).await;
                break;
            };
            let offset = record.offset;
            let name = checked(record)?;
            let before = seen.insert(offset, name);
            ensure!(
                before.is_none_or(|before| before == name),
                "{topic}/{partition} had {before:?} at {offset}, and then {name:?}"
            );
            let at_end = end.borrow().is_some_and(|end| offset + 1 >= end);
            if offset + 1 >= noted + NOTED_EVERY || at_end {
                noted = offset + 1;
            }
        }
    }
}

/// Reads a partition once, from its beginning to its end.
pub async fn everything(
    client: &Client,
    topic: &str,
    partition: u32,
    patience: Duration,
) -> anyhow::Result<(Seen, u64)> {
    let end = client.offset(topic, partition, Offset::End).await?;
    let mut seen = Seen::new();
    let mut reader = client.reader(topic, partition).build().await?;
    while reader.position() < end {
        let next = timeout(patience, reader.next()).await;
        let next = next.with_context(|| {
            let at = reader.position();
            format!("{topic}/{partition} does not give what is at {at}, and ends at {end}")
        })?;
        let record = next.context("a reader ended before its partition")??;
        let offset = record.offset;
        let name = checked(record)?;
        let last = seen.last_key_value().map(|(last, _)| *last);
        ensure!(
            last.is_none_or(|last| last < offset),
            "{topic}/{partition} gives {offset} after {last:?}"
        );
        seen.insert(offset, name);
    }
    Ok((seen, end))
}

/// Name of a record, after a check that key and value are unchanged.
fn checked(record: ConsumedRecord) -> anyhow::Result<Name> {
    let place = (record.partition, record.offset);
    let value = record.value.unwrap_or_default();
    let name = Name::of_value(&value).with_context(|| format!("a foreign record at {place:?}"))?;
    let same = value == name.value() && record.key.is_some_and(|key| key == name.key());
    ensure!(same, "the record {name:?} at {place:?} was changed");
    Ok(name)
}
