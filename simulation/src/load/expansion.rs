//! Adds partitions to the topic while it is written and read.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{AGAIN, Clients, MAIN, operator, topic_name};
use crate::history::{Answer, Call};

/// Grows the topic as planned, until clients stop.
pub async fn run(clients: &Clients) {
    let who = 9_000;
    let begun = Instant::now();
    operator::create_topic(clients, who).await;
    let client = clients.connect(who).await;
    let admin = client.admin();
    let name = topic_name(MAIN);
    for growing in &clients.plan.load.growths {
        sleep_until(begun + Duration::from_millis(growing.at_ms)).await;
        while clients.sending() {
            let partitions = growing.partitions;
            let call = Call::GrowTopic {
                topic: MAIN,
                partitions,
            };
            let asked = admin.grow_topic(&name, partitions);
            match clients.call(call, asked, |_| Answer::Done).await {
                Ok(_) => {
                    clients.grown.store(partitions, Ordering::Relaxed);
                    break;
                }
                Err(error) => tracing::debug!(%error, partitions, "the topic did not grow"),
            }
            sleep(AGAIN).await;
        }
        if !clients.sending() {
            return;
        }
    }
}
