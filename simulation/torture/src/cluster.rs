//! The nodes and their environment.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use ropewalk_client::{Client, Tls, TopicInfo};
use tokio::time::{Instant, sleep};

use crate::fault_kind::{Counts, Kind};
use crate::machine::Machine;
use crate::network::Network;
use crate::node::{Node, Start};
use crate::ports::free_port;
use crate::shell;

/// Free space below which nodes refuse writes.
const FLOOR_BYTES: u64 = 48 << 20;
/// Size of a node's file system: a base, and an amount for each minute of the run.
const DISK_MIB: u64 = 512;
const DISK_MIB_A_MINUTE: u64 = 64;
/// Small, so that tables and blob files appear within minutes.
const LIMITS: &str = "database_bytes = '64MiB'\nlog_tail_bytes = '16MiB'\n";
/// Directory in a node's data directory into which the node moves a damaged database.
const QUARANTINE: &str = "quarantine";
/// Interval at which an awaited condition is checked.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// The nodes and their environment.
#[derive(Debug)]
pub struct Fleet {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Network between them.
    pub network: Network,
    /// Free-space floor of every node.
    pub floor_bytes: u64,
    /// Directory of the run.
    pub dir: PathBuf,
    /// Number of faults of each kind that took effect.
    pub counts: Counts,
    /// Number of times that a node found its database damaged and started with an empty one.
    pub replaced: u64,
    /// Certificates and trust of clients.
    pub tls: Option<Tls>,
    addresses: Vec<String>,
    seeds: String,
    flags: Vec<(String, String)>,
    binary: PathBuf,
    /// Size of the file system of a node's data; none if it has no file system of its own.
    disk: Option<String>,
    clock: Option<PathBuf>,
}

impl Fleet {
    /// Prepares `places` nodes, and starts the first `count`, which are the seeds.
    pub async fn start(
        dir: &Path,
        binary: &Path,
        (count, places): (usize, usize),
        minutes: u64,
        machine: &Machine,
    ) -> anyhow::Result<Fleet> {
        let network = match &machine.networks {
            Ok(()) => Network::namespaces(places).await?,
            Err(_) => {
                Network::Loopback((0..places).map(|_| free_port()).collect::<Result<_, _>>()?)
            }
        };
        let config = dir.join("node.toml");
        let text = format!("[limits]\nfree_space_floor_bytes = {FLOOR_BYTES}\n{LIMITS}");
        tokio::fs::write(&config, text).await?;
        let addresses: Vec<String> = (0..places).map(|node| network.address(node)).collect();
        let size = format!("size={}m", DISK_MIB + DISK_MIB_A_MINUTE * minutes);
        let mut fleet = Fleet {
            nodes: Vec::new(),
            network,
            floor_bytes: FLOOR_BYTES,
            dir: dir.to_path_buf(),
            counts: Counts::new(),
            replaced: 0,
            seeds: addresses[..count].join(","),
            addresses,
            binary: binary.to_path_buf(),
            disk: machine.mounts.is_ok().then_some(size),
            flags: Vec::new(),
            tls: None,
            clock: machine.clocks.as_ref().ok().cloned(),
        };
        for _ in 0..count {
            fleet.add().await?;
        }
        Ok(fleet)
    }

    /// Starts a node at the next place.
    pub async fn add(&mut self) -> anyhow::Result<()> {
        let number = self.nodes.len();
        let config = self.dir.join("node.toml");
        let address = self
            .addresses
            .get(number)
            .context("there is no place left")?;
        let flags = [
            "--listen",
            address,
            "--seeds",
            &self.seeds,
            "--config",
            &config.to_string_lossy(),
        ];
        let start = Start {
            enter: self.network.enter(number),
            binary: self.binary.clone(),
            flags: flags.map(String::from).to_vec(),
            clock: self.clock.clone(),
        };
        let mut node = Node::new(self.dir.join(format!("node-{}", number + 1)), start)?;
        if let Some(size) = &self.disk {
            let data = node.data_dir();
            let args = ["-t", "tmpfs", "-o", size, "ropewalk"].map(OsStr::new);
            shell::run("mount", &[&args[..], &[data.as_os_str()]].concat()).await?;
        }
        for (name, value) in &self.flags {
            node.set_flag(name, &of_node(value, number));
        }
        node.spawn()?;
        self.nodes.push(node);
        Ok(())
    }

    /// Sets a flag of every node, as of its next start; `{node}` in the value stands for the node's number.
    pub fn set_flag(&mut self, name: &str, value: &str) {
        self.flags.push((name.to_owned(), value.to_owned()));
        for (number, node) in self.nodes.iter_mut().enumerate() {
            node.set_flag(name, &of_node(value, number));
        }
    }

    /// Sets the binary of all nodes, as of their next start.
    pub fn set_binary(&mut self, binary: &Path) {
        self.binary = binary.to_path_buf();
        for node in &mut self.nodes {
            node.set_binary(binary);
        }
    }

    /// Address of a node, host:port.
    pub fn address(&self, node: usize) -> &str {
        &self.addresses[node]
    }

    /// A client of these nodes.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let mut client = Client::builder(self.addresses.clone()).request_timeout(LONGEST_CALL);
        if let Some(tls) = &self.tls {
            client = client.tls(tls.clone());
        }
        Ok(client.connect().await?)
    }

    /// Counts a fault that took effect.
    pub fn fired(&mut self, kind: Kind) {
        *self.counts.entry(kind.name()).or_default() += 1;
    }

    /// Fails if a node has ended by itself: no fault here is a reason to.
    pub fn supervise(&mut self) -> anyhow::Result<()> {
        for (number, node) in self.nodes.iter_mut().enumerate() {
            if let Some(status) = node.ended()? {
                let words = node.last_words();
                bail!("node {} ended with {status}:\n{words}", number + 1);
            }
        }
        Ok(())
    }

    /// Removes the databases that nodes set aside, as an operator does after damage. A node with such a
    /// database would not set another aside.
    pub fn clear_quarantines(&mut self) -> anyhow::Result<()> {
        for node in &self.nodes {
            let aside = node.data_dir().join(QUARANTINE);
            if aside.try_exists()? {
                std::fs::remove_dir_all(aside)?;
                self.replaced += 1;
            }
        }
        Ok(())
    }

    /// Waits until every partition of the topic has a leader and all its replicas in sync.
    pub async fn well(
        &mut self,
        client: &Client,
        topic: &str,
        within: Duration,
    ) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        loop {
            self.supervise()?;
            let complaint = match client.admin().topic(topic).await {
                Ok(Some(topic)) => complaint(&topic),
                Ok(None) => "the topic is gone".to_string(),
                Err(error) => error.to_string(),
            };
            if complaint.is_empty() {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > within {
                bail!("after {within:?}: {complaint}");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Fails if a node's log has a panic.
    pub fn check_logs(&self) -> anyhow::Result<()> {
        for (number, node) in self.nodes.iter().enumerate() {
            let log = node.log();
            if let Some(at) = log.find("panicked at") {
                let from = log[..at].rfind('\n').unwrap_or(0);
                let lines: Vec<&str> = log[from..].lines().take(6).collect();
                bail!("node {} panicked:\n{}", number + 1, lines.join("\n"));
            }
        }
        Ok(())
    }

    /// Keeps a copy of every node's data beside its log: file systems in memory end with this run.
    pub async fn keep_data(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.kill().await?;
            let data = node.data_dir();
            let copy = data.with_file_name("data-kept");
            let args = ["-a".as_ref(), data.as_os_str(), copy.as_os_str()];
            shell::run("cp", &args).await.context("keeping the data")?;
        }
        Ok(())
    }
}

fn of_node(value: &str, number: usize) -> String {
    value.replace("{node}", &(number + 1).to_string())
}

/// Time limit of a client's call with all its retries.
const LONGEST_CALL: Duration = Duration::from_secs(20);

/// Reasons why a topic has not recovered; empty if it has.
fn complaint(topic: &TopicInfo) -> String {
    let mut wrong = Vec::new();
    for one in &topic.partitions {
        let (number, in_sync) = (one.partition, &one.in_sync_node_ids);
        if one.leader_node_id.is_none() {
            wrong.push(format!("nobody leads partition {number}"));
        } else if !one
            .replica_node_ids
            .iter()
            .all(|node| in_sync.contains(node))
        {
            let all = &one.replica_node_ids;
            wrong.push(format!(
                "of partition {number} on nodes {all:?} only {in_sync:?} are in sync"
            ));
        }
    }
    wrong.join("; ")
}
