//! The three nodes of all measurements, and helpers that all measurements share.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use ropewalk_client::{Bootstrap, Client, PartitionInfo, TopicSettings};
use ropewalk_demo::cluster::{self, Node};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Time limit of operations that should take seconds.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Interval at which an awaited condition is checked.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);
const NODES: usize = 3;

/// A running cluster.
pub struct Stage {
    pub binary: PathBuf,
    pub nodes: Vec<Node>,
    pub ids: Vec<u64>,
    pub client: Client,
    _dir: TempDir,
}

impl Stage {
    pub async fn start() -> anyhow::Result<Stage> {
        let binary = ropewalk_demo::build::command().await?;
        let dir = tempfile::tempdir()?;
        let mut nodes = cluster::cluster(&binary, dir.path(), NODES)?;
        let ready = cluster::start_all(&mut nodes, PATIENCE).await?;
        let addresses = nodes.iter().map(|node| node.address.as_str());
        let client = Client::connect(Bootstrap::from_iter(addresses)).await?;
        Ok(Stage {
            binary,
            nodes,
            ids: ready.iter().map(|ready| ready.node_id).collect(),
            client,
            _dir: dir,
        })
    }

    /// A client with separate connections.
    pub async fn another(&self) -> anyhow::Result<Client> {
        let addresses = self.nodes.iter().map(|node| node.address.as_str());
        Ok(Client::connect(Bootstrap::from_iter(addresses)).await?)
    }

    pub async fn create(&self, topic: &str, partitions: u32) -> anyhow::Result<()> {
        let settings = TopicSettings::default().replicas(NODES as u32);
        let admin = self.client.admin();
        admin.create_topic(topic, partitions, settings).await?;
        self.until_in_sync(topic).await
    }

    /// Waits until every partition of a topic has a leader, and all its replicas are in sync.
    pub async fn until_in_sync(&self, topic: &str) -> anyhow::Result<()> {
        let is_whole = |one: &PartitionInfo| {
            let in_sync = one.in_sync_node_ids.len() == one.replica_node_ids.len();
            one.leader_node_id.is_some() && in_sync
        };
        let begun = Instant::now();
        loop {
            let topics = self.client.admin().topics().await?;
            let found = topics.iter().find(|found| found.name == topic);
            let found = found.with_context(|| format!("topic {topic:?} does not exist"))?;
            if found.partitions.iter().all(is_whole) {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "the replicas of topic {topic} do not keep up"
            );
            sleep(LOOK_EVERY).await;
        }
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        for mut node in self.nodes {
            node.terminate(PATIENCE).await?;
        }
        Ok(())
    }
}

/// Prints a figure.
pub fn say(what: &str, figure: impl AsRef<str>) {
    println!("  {what:<28}  {}", figure.as_ref());
}

/// Median and maximum of some times.
pub fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    match (times.get(times.len() / 2), times.last()) {
        (Some(median), Some(most)) => format!(
            "{:.2} s in the median, {:.2} s at most, of {}",
            median.as_secs_f64(),
            most.as_secs_f64(),
            times.len()
        ),
        _ => "none".to_owned(),
    }
}
