//! The cluster, its clients, and their history.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use ropewalk_client::{Client, ClusterStatus, NodeState, TopicSettings};
use tokio::time::{Instant, sleep, timeout};

use super::load::Load;
use super::steps::Step;
use super::{Order, Row};
use crate::cluster::Fleet;
use crate::history::{History, Name, Outcome};
use crate::machine::Machine;
use crate::readers::{Seen, everything};

pub const TOPIC: &str = "day-two";
const PARTITIONS: u32 = 6;
const REPLICAS: u32 = 3;
/// Number of nodes at the beginning and at the end, and the maximum number.
pub const NODES: usize = 3;
pub const MOST_NODES: usize = 5;
/// Time limit of operations that move no more data than these records.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Pause after a step before its effects are measured.
const CALM: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Maximum duration of a run in minutes, which determines the size of disks in memory.
const MINUTES: u64 = 10;

/// Cluster, clients and history.
#[derive(Debug)]
pub struct Ground {
    pub fleet: Fleet,
    pub client: Client,
    history: History,
    load: Load,
    rate: u32,
}

impl Ground {
    /// Starts the nodes and the load.
    pub async fn start(order: &Order, machine: &Machine) -> anyhow::Result<Ground> {
        let places = (NODES, MOST_NODES);
        let mut fleet = Fleet::start(
            &order.dir,
            order.from.as_ref().unwrap_or(&order.binary),
            places,
            MINUTES,
            machine,
        )
        .await?;
        let client = timeout(PATIENCE, connect(&fleet)).await;
        let client = client.context("the cluster was not formed")?;
        let settings = TopicSettings::default().replicas(REPLICAS);
        let admin = client.admin();
        admin.create_topic(TOPIC, PARTITIONS, settings).await?;
        fleet.well(&client, TOPIC, PATIENCE).await?;
        let history = History::default();
        let load = Load::start(&fleet, &history, order.rate).await?;
        Ok(Ground {
            fleet,
            client,
            history,
            load,
            rate: order.rate,
        })
    }

    /// Runs a step and waits until the cluster has recovered.
    pub async fn take(
        &mut self,
        step: Step,
        order: &Order,
        machine: &Machine,
    ) -> anyhow::Result<Row> {
        self.history.longest_pause();
        let begun = Instant::now();
        let what = step.run(self, order, machine).await;
        let what = what.with_context(|| format!("step {}", step.name()))?;
        self.well().await?;
        let took = begun.elapsed();
        sleep(CALM).await;
        self.fleet.supervise()?;
        Ok(Row {
            step: step.name(),
            what,
            seconds: took.as_secs_f64(),
            longest_pause_s: self.history.longest_pause().as_secs_f64(),
            errors: self.history.complaints(),
        })
    }

    /// Replaces all clients.
    pub async fn change_clients(&mut self, within: Duration) -> anyhow::Result<()> {
        let (fleet, history) = (&self.fleet, &self.history);
        self.load.replace(fleet, history, self.rate, within).await
    }

    /// Waits until every partition has a leader and all its replicas in sync.
    pub async fn well(&mut self) -> anyhow::Result<()> {
        let well = self.fleet.well(&self.client, TOPIC, PATIENCE).await;
        well.map(drop)
    }

    /// Waits until the cluster's status meets the condition.
    pub async fn until(
        &mut self,
        what: &str,
        wished: impl Fn(&ClusterStatus) -> bool,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            self.fleet.supervise()?;
            let found = self.client.admin().cluster_status().await;
            if found.as_ref().is_ok_and(&wished) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("after {PATIENCE:?}, still not so: {what}; {found:?}");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The node that leads most partitions of the topic, and its id. Its loss has the largest effect.
    pub async fn busiest(&self) -> anyhow::Result<(usize, u64)> {
        let admin = self.client.admin();
        let topic = admin.topic(TOPIC).await?.context("the topic is gone")?;
        let mut led: BTreeMap<u64, usize> = BTreeMap::new();
        for leader in topic.partitions.iter().filter_map(|one| one.leader_node_id) {
            *led.entry(leader).or_default() += 1;
        }
        let most = led.into_iter().max_by_key(|(_, count)| *count);
        let (id, _) = most.context("no partition has a leader")?;
        let status = admin.cluster_status().await?;
        let leader = status.nodes.iter().find(|node| node.node_id == id);
        let address = &leader.context("a leader that is no node")?.address;
        let mut places = 0..self.fleet.nodes.len();
        let node = places.find(|node| self.fleet.address(*node) == address);
        Ok((node.context("a node that was not started here")?, id))
    }

    /// Decommissions or activates a node.
    pub async fn set_state(&self, node_id: u64, state: NodeState) -> anyhow::Result<()> {
        Ok(self.client.admin().set_node_state(node_id, state).await?)
    }

    /// Ends the load. Returns the records sent, the content of each partition, and the records that the group
    /// received.
    pub async fn finish(
        &mut self,
    ) -> anyhow::Result<(Vec<(Name, Outcome)>, Vec<Seen>, BTreeSet<Name>)> {
        self.load.stop_producers(PATIENCE * 2).await?;
        let mut read = Vec::new();
        for partition in 0..PARTITIONS {
            let (seen, _) = everything(&self.client, TOPIC, partition, PATIENCE).await?;
            read.push(seen);
        }
        let all: usize = read.iter().map(Seen::len).sum();
        let delivered = self.load.stop_group(all, PATIENCE).await?;
        let told = self.history.complaints();
        ensure!(told.is_empty(), "a client was told: {told:?}");
        Ok((self.history.all(), read, delivered))
    }
}

async fn connect(fleet: &Fleet) -> Client {
    loop {
        if let Ok(client) = fleet.client().await
            && let Ok(status) = client.admin().cluster_status().await
            && status.nodes.len() == fleet.nodes.len()
        {
            return client;
        }
        sleep(LOOK_EVERY).await;
    }
}
