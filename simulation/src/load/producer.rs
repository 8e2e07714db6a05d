//! One producer: keyed records, many under way, each outcome written down.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use ropewalk_client::{Record, Ticket};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Clients, TOPIC, until_done, value};
use crate::history::{Event, RecordName};

/// Records under way at most.
const IN_FLIGHT: usize = 64;

/// Produces until told to stop, then waits for all answers.
pub async fn run(clients: &Clients, number: u32) {
    let load = clients.plan.load.clone();
    let mut random = SmallRng::seed_from_u64(clients.plan.seed ^ u64::from(number) << 32);
    let client = clients.connect(u64::from(number)).await;
    let producer = until_done("beginning to produce", || client.producer(TOPIC).build()).await;
    let mut waiting = JoinSet::new();
    let mut sent = 0;
    while clients.sending.load(Ordering::Relaxed) {
        let name = (number, sent);
        sent += 1;
        let key = random.random_range(0..load.keys);
        clients.history.add(Event::Sent { name, key });
        let record = Record::new()
            .key(format!("key-{key}"))
            .value(value(name, load.padding_bytes));
        match producer.send(record).await {
            Ok(ticket) => {
                waiting.spawn_local(outcome(clients.clone(), name, ticket));
            }
            Err(error) => clients.history.add(Event::Failed {
                name,
                unknown: error.outcome_unknown(),
                error: error.to_string(),
            }),
        }
        while waiting.len() >= IN_FLIGHT {
            waiting.join_next().await;
        }
        sleep(Duration::from_millis(
            random.random_range(0..=2 * load.pause_ms),
        ))
        .await;
    }
    while waiting.join_next().await.is_some() {}
}

async fn outcome(clients: Clients, name: RecordName, ticket: Ticket) {
    let event = match ticket.await {
        Ok(receipt) => Event::Acknowledged {
            name,
            partition: receipt.partition,
            offset: receipt.offset,
        },
        Err(error) => Event::Failed {
            name,
            unknown: error.outcome_unknown(),
            error: error.to_string(),
        },
    };
    clients.history.add(event);
}
