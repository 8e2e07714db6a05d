//! Those who publish: keyed, idempotent, at a steady pace. Some give up on a record after a few
//! seconds and never learn what became of it; others wait for as long as it takes.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ropewalk_client::{Client, Producer, Record};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::history::{History, Name, Outcome, Place};

/// Records of one producer under way at most.
const UNDER_WAY: usize = 2_000;
/// Before a new life begins.
const REST: Duration = Duration::from_millis(500);

/// One who publishes.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its number.
    pub producer: u32,
    /// Records a second.
    pub rate: u32,
    /// How long it waits for an acknowledgement.
    pub patience: Duration,
}

/// Publishes until `stop`, and then waits for what is under way.
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

/// One life: ends with `stop`, or with the first record that is not acknowledged. What comes after
/// a record of unknown outcome has no order against it, so a new life takes new keys.
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
            // An error means that whoever could say so is gone.
            _ = stop.changed(), if open => open = !*stop.borrow() && stop.has_changed().is_ok(),
        }
    }
    // Everything is answered; there is nothing left to say.
    let _ = producer.close().await;
}

fn failed(history: &History, error: &ropewalk_client::Error) -> Outcome {
    history.complain(format!("publishing: {error}"));
    match error.outcome_unknown() {
        true => Outcome::Unknown,
        false => Outcome::Refused,
    }
}
