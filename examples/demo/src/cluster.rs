//! Nodes as separate processes: started, killed, restarted. Every process started here ends with its
//! [`Node`], even if the program fails. No other process is ever touched.

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

/// Range of ports for nodes. It is below the ports that the system uses for outgoing connections, since one
/// of those could take a killed node's port before its restart.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Number of log lines that an error quotes.
const QUOTED_LINES: usize = 15;

/// Ready line of a node that serves.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// Id that the cluster assigned to it.
    pub node_id: u64,
}

/// One node, running or not: its address and its data outlive its process.
#[derive(Debug)]
pub struct Node {
    binary: PathBuf,
    dir: PathBuf,
    /// Address of its gRPC listener, host:port.
    pub address: String,
    /// Further flags for each start.
    pub flags: Vec<String>,
    /// Variables that its environment has in addition to this program's.
    pub env: Vec<(String, String)>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// Creates `count` nodes with one list of seeds, in folders of `dir`. None runs yet.
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

/// Addresses of the nodes, as `--seeds` and `--bootstrap` take them.
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
    /// A node that keeps its data and its log in `dir`, on a free port.
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

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Path of the log of all its processes.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Id of its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(|running| running.child.id())
    }

    /// Starts its process; [`Node::ready`] waits until it serves.
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

    /// Waits until it prints that it serves.
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

    /// Starts it and waits until it serves.
    pub async fn start(&mut self, within: Duration) -> anyhow::Result<Ready> {
        self.spawn()?;
        self.ready(within).await
    }

    /// Kills it with SIGKILL, without a flush or a clean close.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut running = self.running.take().context("this node does not run")?;
        running.child.kill().await.context("killing a node")
    }

    /// Stops it with SIGTERM and waits for its end.
    pub async fn terminate(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let pid = self.pid().context("this node does not run")?;
        let told = Command::new("sh")
            .args(["-c", &format!("kill -TERM {pid}")])
            .status()
            .await?;
        anyhow::ensure!(told.success(), "no process {pid} to stop");
        self.ended(within).await
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let running = self.running.as_mut().context("this node does not run")?;
        let status = timeout(within, running.child.wait())
            .await
            .with_context(|| format!("node {} still runs after {within:?}", self.address))??;
        self.running = None;
        Ok(status)
    }

    /// End of its log, for an error message.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(QUOTED_LINES);
        format!("the end of its log:\n{}", lines[from..].join("\n"))
    }
}

/// A port that no process listens on and that was not given out here before.
pub fn free_port() -> anyhow::Result<u16> {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Programs that run at the same time begin at different ports. Process ids are no help, since they start
    // again in each namespace.
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
