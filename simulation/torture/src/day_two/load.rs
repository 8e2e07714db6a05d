//! Those who use the cluster meanwhile, with the default settings: four producers, and a group of two.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use parking_lot::Mutex;
use ropewalk_client::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::ground::TOPIC;
use crate::fleet::Fleet;
use crate::history::{History, Name};
use crate::workload::{Plan, publish};

const PRODUCERS: u32 = 4;
const MEMBERS: usize = 2;
const GROUP: &str = "readers";
/// As long as a producer waits if it is told nothing.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The clients.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    producers: JoinSet<()>,
    members: JoinSet<()>,
    given: Arc<Mutex<BTreeSet<Name>>>,
}

impl Load {
    /// Starts them.
    pub async fn start(fleet: &Fleet, history: &History, rate: u32) -> anyhow::Result<Load> {
        let mut load = Load {
            stop: watch::Sender::new(false),
            producers: JoinSet::new(),
            members: JoinSet::new(),
            given: Arc::default(),
        };
        for producer in 0..PRODUCERS {
            let plan = Plan {
                producer,
                rate,
                patience: DELIVERY_TIMEOUT,
            };
            let (client, stopped) = (fleet.client().await?, load.stop.subscribe());
            let publishing = publish(client, TOPIC.into(), plan, history.clone(), stopped);
            load.producers.spawn(publishing);
        }
        for _ in 0..MEMBERS {
            let (client, given) = (fleet.client().await?, load.given.clone());
            load.members.spawn(read(client, given, history.clone()));
        }
        Ok(load)
    }

    /// Tells the producers to stop, and waits until they have heard of all they sent.
    pub async fn stop_producers(&mut self, within: Duration) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        let ended = async { while self.producers.join_next().await.is_some() {} };
        let ended = timeout(within, ended).await;
        ended.context("a producer does not end")
    }

    /// Waits until the group was given so many records; which.
    pub async fn stop_group(
        &mut self,
        records: usize,
        within: Duration,
    ) -> anyhow::Result<BTreeSet<Name>> {
        let begun = Instant::now();
        while self.given.lock().len() < records && begun.elapsed() < within {
            sleep(LOOK_EVERY).await;
        }
        self.members.shutdown().await;
        Ok(std::mem::take(&mut *self.given.lock()))
    }
}

/// One member: an error is one too many, but it goes on.
async fn read(client: Client, given: Arc<Mutex<BTreeSet<Name>>>, history: History) {
    loop {
        let subscribed = client.subscribe(GROUP).topics([TOPIC]).build().await;
        let mut records = match subscribed {
            Ok(records) => records,
            Err(error) => {
                history.complain(format!("subscribing: {error}"));
                sleep(LOOK_EVERY).await;
                continue;
            }
        };
        while let Some(delivery) = records.next().await {
            match delivery {
                Ok(delivery) => {
                    let value = delivery.value.as_deref().unwrap_or_default();
                    if let Some(name) = Name::of_value(value) {
                        given.lock().insert(name);
                    }
                    delivery.done();
                }
                Err(error) => history.complain(format!("reading: {error}")),
            }
        }
        history.complain("reading: the stream ended".to_owned());
    }
}
