//! Clients with the default settings: four producers, and a group of two members.

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

use super::environment::TOPIC;
use crate::cluster::Fleet;
use crate::history::{History, Name};
use crate::workload::{Plan, publish};

const PRODUCERS: u32 = 4;
const MEMBERS: usize = 2;
const GROUP: &str = "readers";
/// Default delivery timeout of a producer.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The clients.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    producers: JoinSet<()>,
    members: JoinSet<()>,
    given: Arc<Mutex<BTreeSet<Name>>>,
    /// Number of producers started so far.
    began: u32,
}

impl Load {
    /// Starts the clients.
    pub async fn start(fleet: &Fleet, history: &History, rate: u32) -> anyhow::Result<Load> {
        let mut load = Load {
            stop: watch::Sender::new(false),
            producers: JoinSet::new(),
            members: JoinSet::new(),
            given: Arc::default(),
            began: 0,
        };
        load.begin(fleet, history, rate).await?;
        Ok(load)
    }

    async fn begin(&mut self, fleet: &Fleet, history: &History, rate: u32) -> anyhow::Result<()> {
        for _ in 0..PRODUCERS {
            let plan = Plan {
                producer: self.began,
                rate,
                patience: DELIVERY_TIMEOUT,
            };
            self.began += 1;
            let (client, stopped) = (fleet.client().await?, self.stop.subscribe());
            let publishing = publish(client, TOPIC.into(), plan, history.clone(), stopped);
            self.producers.spawn(publishing);
        }
        for _ in 0..MEMBERS {
            let (client, given) = (fleet.client().await?, self.given.clone());
            self.members.spawn(read(client, given, history.clone()));
        }
        Ok(())
    }

    /// Replaces all clients, as a redeployment of services does.
    pub async fn replace(
        &mut self,
        fleet: &Fleet,
        history: &History,
        rate: u32,
        within: Duration,
    ) -> anyhow::Result<()> {
        let stop = std::mem::replace(&mut self.stop, watch::Sender::new(false));
        let mut producers = std::mem::take(&mut self.producers);
        let mut members = std::mem::take(&mut self.members);
        self.begin(fleet, history, rate).await?;
        stop.send_replace(true);
        until_ended(&mut producers, within).await?;
        members.shutdown().await;
        Ok(())
    }

    /// Stops the producers, and waits until all their records have an outcome.
    pub async fn stop_producers(&mut self, within: Duration) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        until_ended(&mut self.producers, within).await
    }

    /// Waits until the group has received this many records, and returns them.
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

async fn until_ended(producers: &mut JoinSet<()>, within: Duration) -> anyhow::Result<()> {
    let ended = async { while producers.join_next().await.is_some() {} };
    let ended = timeout(within, ended).await;
    ended.context("a producer does not end")
}

/// One member. It records every error and continues; the run fails if there was one.
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
                    delivery.ack();
                }
                Err(error) => history.complain(format!("reading: {error}")),
            }
        }
        history.complain("reading: the stream ended".to_owned());
    }
}
