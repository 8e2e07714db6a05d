//! Starts, kills and restarts nodes as separate processes. A process ends when its [`Node`] is dropped, even if
//! the program fails. This module never touches any other process.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// Range of ports for nodes. It is below the ports that the system assigns to outgoing connections: one of
/// those could otherwise take the port of a killed node before the node is back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Number of log lines that an error quotes.
const QUOTED_LINES: usize = 15;

/// Content of the `ready` line that a node prints once it serves.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// Node id assigned by the cluster.
    pub node_id: u64,
}

/// A node, running or stopped. Its address and its data outlive its process.
#[derive(Debug)]
pub struct Node {
    binary: PathBuf,
    dir: PathBuf,
    /// Address (host:port) of its gRPC listener.
    pub address: String,
    /// Further command line flags, used at each start.
    pub flags: Vec<String>,
    /// Environment variables in addition to those of this program.
    pub env: Vec<(String, String)>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// Creates `count` nodes with the same list of seeds, each in a folder of `dir`. Does not start them.
pub fn cluster(binary: &Path, dir: &Path, count: usize) -> anyhow::Result<Vec<Node>> {
    let mut nodes = Vec::with_capacity(count);
    for number in 1..=count {
        let dir = dir.join(format!("node-{number}"));
        nodes.push(Node::new(binary, dir)?);
    }
    let seeds = addresses(&nodes);
    for node in &mut nodes {
        node.flags.extend(["--seeds".into(), seeds.clone()]);
    }
    Ok(nodes)
}

/// Addresses of the nodes in the format of `--seeds` and `--bootstrap`.
pub fn addresses(nodes: &[Node]) -> String {
    let addresses: Vec<&str> = nodes.iter().map(|node| node.address.as_str()).collect();
    addresses.join(",")
}

/// Starts all nodes and waits until each serves.
pub async fn start_all(nodes: &mut [Node], within: Duration) -> anyhow::Result<Vec<Ready>> {
    for node in nodes.iter_mut() {
        node.spawn()?;
    }
    let mut ready = Vec::with_capacity(nodes.len());
    for node in nodes {
        ready.push(node.ready(within).await?);
    }
    Ok(ready)
}

impl Node {
    /// Creates a node on a free port, with its data and its log in `dir`.
    pub fn new(binary: &Path, dir: PathBuf) -> anyhow::Result<Node> {
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Node {
            binary: binary.to_path_buf(),
            dir,
            address: format!("127.0.0.1:{}", free_port()?),
            flags: Vec::new(),
            env: Vec::new(),
            running: None,
        })
    }

    /// Data directory of the node.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Log file of the node; all its processes append to it.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Process id, while the node runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(|running| running.child.id())
    }

    /// Starts the process. Call [`Node::ready`] to wait until the node serves.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let mut child = Command::new(&self.binary)
            .args(["node", "--listen", &self.address, "--data-dir"])
            .arg(self.data_dir())
            .args(&self.flags)
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        let stdout = child.stdout.take().context("a child without a stdout")?;
        let lines = BufReader::new(stdout).lines();
        self.running = Some(Running { child, lines });
        Ok(())
    }

    /// Waits for the `ready` line.
    pub async fn ready(&mut self, within: Duration) -> anyhow::Result<Ready> {
        let running = self.running.as_mut().context("this node was not started")?;
        let line = match timeout(within, running.lines.next_line()).await {
            Ok(Ok(Some(line))) => line,
            Ok(_) => bail!(
                "node {} ended before it was ready; {}",
                self.address,
                self.last_words()
            ),
            Err(_) => bail!(
                "node {} was not ready within {within:?}; {}",
                self.address,
                self.last_words()
            ),
        };
        let json = line
            .strip_prefix("ready ")
            .with_context(|| format!("not a ready line: {line}"))?;
        serde_json::from_str(json).with_context(|| format!("not a ready line: {line}"))
    }

    /// Starts the process and waits until the node serves.
    pub async fn start(&mut self, within: Duration) -> anyhow::Result<Ready> {
        self.spawn()?;
        self.ready(within).await
    }

    /// Kills the process with SIGKILL, so that it cannot shut down or flush.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut running = self.running.take().context("this node does not run")?;
        running.child.kill().await.context("killing a node")
    }

    /// Stops the process with SIGTERM, and waits until it has exited.
    pub async fn terminate(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let pid = self.pid().context("this node does not run")?;
        let told = Command::new("sh")
            .args(["-c", &format!("kill -TERM {pid}")])
            .status()
            .await?;
        anyhow::ensure!(told.success(), "no process {pid} to stop");
        self.ended(within).await
    }

    /// Waits until the process exits.
    pub async fn ended(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let running = self.running.as_mut().context("this node does not run")?;
        let status = timeout(within, running.child.wait())
            .await
            .with_context(|| format!("node {} still runs after {within:?}", self.address))??;
        self.running = None;
        Ok(status)
    }

    /// Last lines of its log, for an error message.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(QUOTED_LINES);
        format!("the end of its log:\n{}", lines[from..].join("\n"))
    }
}

/// Returns a free port that this function has not returned before.
pub fn free_port() -> anyhow::Result<u16> {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Programs that run at the same time begin at different ports. The process id would not do as a seed: it
    // is the same for the first process of each PID namespace.
    static OWN: LazyLock<u32> = LazyLock::new(|| RandomState::new().build_hasher().finish() as u32);
    let own = u64::from(*OWN);
    let count = PORTS.end - PORTS.start;
    for _ in 0..count {
        let step = GIVEN.fetch_add(1, Ordering::Relaxed);
        let at = (own + u64::from(step)) % u64::from(count);
        let port = PORTS.start + u16::try_from(at)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {} to {}", PORTS.start, PORTS.end)
}
