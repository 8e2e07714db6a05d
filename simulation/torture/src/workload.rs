//! Producers: keyed, idempotent, at a steady pace. Some give up on a record after a few seconds and never
//! learn its outcome; others wait as long as it takes.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ropewalk_client::{Client, Producer, Record};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::history::{History, Name, Outcome, Place};

/// Maximum number of records of one producer in flight.
const UNDER_WAY: usize = 2_000;
/// Pause before a new life.
const REST: Duration = Duration::from_millis(500);

/// Settings of one producer.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its number.
    pub producer: u32,
    /// Records per second.
    pub rate: u32,
    /// Delivery timeout.
    pub patience: Duration,
}

/// Publishes until `stop`, and then waits for the records in flight.
pub async fn publish(
    client: Client,
    topic: String,
    plan: Plan,
    history: History,
    stop: watch::Receiver<bool>,
) {
    let mut life = 0;
    while !*stop.borrow() {
        let producer = client.producer(&topic).delivery_timeout(plan.patience);
        match producer.build().await {
            Ok(producer) => live(&producer, &plan, life, &history, stop.clone()).await,
            Err(_) => sleep(REST).await,
        }
        life += 1;
    }
}

/// One life: it ends with `stop`, or with the first record that is not acknowledged. Records after one of
/// unknown outcome have no order relative to it, so a new life uses new keys.
async fn live(
    producer: &Producer,
    plan: &Plan,
    life: u32,
    history: &History,
    mut stop: watch::Receiver<bool>,
) {
    let mut due = Instant::now();
    let mut number = 0;
    let mut open = true;
    let mut under_way = FuturesUnordered::new();
    while open || !under_way.is_empty() {
        tokio::select! {
            () = sleep_until(due), if open && under_way.len() < UNDER_WAY => {
                due = (due + Duration::from_secs(1) / plan.rate).max(Instant::now() - REST);
                let name = Name { producer: plan.producer, life, number };
                number += 1;
                history.sent(name);
                let record = Record::new().key(name.key()).value(name.value());
                match producer.send(record).await {
                    Ok(ticket) => under_way.push(async move { (name, ticket.await) }),
                    Err(error) => {
                        history.ended(name, failed(history, &error));
                        open = false;
                    }
                }
            }
            Some((name, receipt)) = under_way.next() => {
                let outcome = match receipt {
                    Ok(receipt) => Outcome::Acknowledged(Place {
                        partition: receipt.partition,
                        offset: receipt.offset,
                    }),
                    Err(error) => {
                        open = false;
                        failed(history, &error)
                    }
                };
                history.ended(name, outcome);
            }
            // An error means that the sender of the stop signal is gone.
            _ = stop.changed(), if open => open = !*stop.borrow() && stop.has_changed().is_ok(),
        }
    }
    // All records have their outcome, so an error of the close does not matter.
    let _ = producer.close().await;
}

fn failed(history: &History, error: &ropewalk_client::Error) -> Outcome {
    history.complain(format!("publishing: {error}"));
    match error.outcome_unknown() {
        true => Outcome::Unknown,
        false => Outcome::Refused,
    }
}
