//! A reader that begins anywhere: it asks for an offset, reads a little from there, and ends.

use std::time::Duration;

use futures_util::StreamExt;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use ropewalk_client::{Client, Error, Offset};
use tokio::time::{Instant, sleep, timeout_at};

use super::reader::{found, got};
use super::{Clients, MAIN, now_ms, topic_name};
use crate::history::{Answer, Call, Event, Place};

/// Maximum duration of a read.
const STAY: Duration = Duration::from_millis(1_500);
/// Maximum number of records of a read.
const RECORDS: usize = 200;
/// First number of wandering readers; each read has another number.
const FIRST: u32 = 10_000;
/// Maximum number of reads of one random reader.
const TIMES: u32 = 100_000;

/// Reads here and there until told to stop.
pub async fn run(clients: &Clients, number: u32) {
    let who = 5_000 + u64::from(number);
    let mut random = SmallRng::seed_from_u64(clients.seed_of(who));
    let client = clients.connect(who).await;
    let load = &clients.plan.load;
    let begun_ms = now_ms();
    let mut reader = FIRST + number * TIMES;
    while clients.sending() {
        reader += 1;
        let place = Place {
            topic: MAIN,
            partition: random.random_range(0..load.most_partitions()),
        };
        let went = match random.random_range(0..4) {
            0 => Offset::Beginning,
            1 => Offset::End,
            // Clocks of nodes may be wrong; those of producers are right.
            2 => Offset::TimestampMs(random.random_range(begun_ms - 1_000..=now_ms() + 1_000)),
            _ => Offset::At(random.random_range(0..2_000)),
        };
        if let Err(error) = visit(clients, &client, reader, place, went).await {
            tracing::debug!(%error, %place, "a visit ended early");
        }
        let pause_ms = random.random_range(0..=2 * load.wander_every_ms);
        sleep(Duration::from_millis(pause_ms)).await;
    }
}

async fn visit(
    clients: &Clients,
    client: &Client,
    number: u32,
    place: Place,
    to: Offset,
) -> Result<(), Error> {
    let offset = ask(clients, client, place, to).await?;
    let name = topic_name(place.topic);
    let reader = client.reader(&name, place.partition);
    let mut reader = reader.from(Offset::At(offset)).build().await?;
    clients.history.add(Event::Began {
        reader: number,
        place,
        offset,
    });
    let end = Instant::now() + STAY;
    for _ in 0..RECORDS {
        match timeout_at(end, reader.next()).await {
            Ok(Some(record)) => got(clients, number, place, found(&record?)),
            Ok(None) | Err(_) => break,
        }
    }
    Ok(())
}

/// Asks for an offset and records the answer.
async fn ask(clients: &Clients, client: &Client, place: Place, to: Offset) -> Result<u64, Error> {
    let call = match to {
        Offset::At(offset) => return Ok(offset),
        Offset::Beginning => Call::Beginning { place },
        Offset::End => Call::End { place },
        Offset::TimestampMs(time_ms) => Call::AtTime { place, time_ms },
    };
    let name = topic_name(place.topic);
    let asked = client.offset(&name, place.partition, to);
    let answer = |offset: &u64| Answer::Offset(*offset);
    clients.call(call, asked, answer).await
}
