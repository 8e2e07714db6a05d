//! Start and end of faults of nodes.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::cluster::Fleet;
use crate::fault_kind::Kind;
use crate::schedule::Fault;
use crate::shell;

/// Duration of each sync of a slow disk.
const SLOW_SYNC_MICROS: u64 = 400_000;
/// Maximum step of a clock.
const CLOCK_STEP: Duration = Duration::from_secs(3_600);
/// File that fills a disk.
const FILLER: &str = "filler";
/// Time limit for a tracer to detach.
const LET_GO_WITHIN: Duration = Duration::from_secs(5);

/// A fault under way.
#[derive(Debug)]
pub struct Active {
    /// The fault.
    pub fault: Fault,
    tracer: Option<Tracer>,
}

#[derive(Debug)]
struct Tracer {
    strace: Child,
    said: PathBuf,
}

impl Fleet {
    /// Starts a fault. Returns a description.
    pub async fn inject(&mut self, fault: Fault) -> anyhow::Result<(Active, String)> {
        let node = *fault.nodes.first().context("a fault of no node")?;
        let mut tracer = None;
        let mut what = format!("{} of {}", fault.kind.name(), names(&fault.nodes));
        match fault.kind {
            Kind::KillOne | Kind::KillMajority | Kind::KillAll => {
                for node in &fault.nodes {
                    self.nodes[*node].kill().await?;
                }
            }
            Kind::FlippedBit => {
                self.nodes[node].kill().await?;
                if let Some(place) = self.nodes[node].flip_a_bit(fault.draw)? {
                    what = format!("{what}: {place}");
                    self.fired(fault.kind);
                }
            }
            Kind::Pause => self.nodes[node].signal("STOP").await?,
            Kind::SlowSync => {
                let how = format!("delay_enter={SLOW_SYNC_MICROS}");
                tracer = Some(self.trace(node, &how).await?);
            }
            Kind::FailedSync => tracer = Some(self.trace(node, "error=EIO:when=1").await?),
            Kind::CutPair | Kind::CutOneWay => {
                let other = fault.nodes[1];
                self.network.cut(node, other).await?;
                if fault.kind == Kind::CutPair {
                    self.network.cut(other, node).await?;
                }
            }
            Kind::Isolate => self.network.plug(node, false).await?,
            Kind::BelowFloor | Kind::DiskFull => {
                let free = self.free_bytes(node).await?;
                let keep = match fault.kind {
                    Kind::BelowFloor => self.floor_bytes * 3 / 4,
                    _ => 0,
                };
                self.fill(node, free.saturating_sub(keep)).await?;
            }
            Kind::ClockStep => {
                let by = fault.draw % u64::try_from(CLOCK_STEP.as_millis())?;
                let (by, back) = (Duration::from_millis(by), fault.draw & (1 << 40) == 0);
                self.nodes[node].set_clock(by, back)?;
                what = format!("{what}: {}{by:?}", if back { "-" } else { "+" });
            }
        }
        let at_once = !matches!(
            fault.kind,
            Kind::SlowSync | Kind::FailedSync | Kind::FlippedBit
        );
        if at_once {
            self.fired(fault.kind);
        }
        Ok((Active { fault, tracer }, what))
    }

    /// Ends a fault.
    pub async fn heal(&mut self, active: Active) -> anyhow::Result<()> {
        let Active { fault, tracer } = active;
        let node = *fault.nodes.first().context("a fault of no node")?;
        match fault.kind {
            Kind::KillOne | Kind::KillMajority | Kind::KillAll | Kind::FlippedBit => {
                for node in &fault.nodes {
                    self.nodes[*node].spawn()?;
                }
            }
            Kind::Pause => self.nodes[node].signal("CONT").await?,
            Kind::SlowSync | Kind::FailedSync => {
                if let Some(tracer) = tracer
                    && tracer.let_go().await?
                {
                    self.fired(fault.kind);
                }
            }
            Kind::CutPair | Kind::CutOneWay => {
                let other = fault.nodes[1];
                self.network.mend(node, other).await?;
                if fault.kind == Kind::CutPair {
                    self.network.mend(other, node).await?;
                }
            }
            Kind::Isolate => self.network.plug(node, true).await?,
            Kind::BelowFloor | Kind::DiskFull => {
                tokio::fs::remove_file(self.nodes[node].data_dir().join(FILLER)).await?;
            }
            Kind::ClockStep => self.nodes[node].set_clock(Duration::ZERO, false)?,
        }
        Ok(())
    }

    /// Delays or fails a node's syncs, from now on until the tracer detaches.
    async fn trace(&self, node: usize, how: &str) -> anyhow::Result<Tracer> {
        let pid = self.nodes[node]
            .pid()
            .context("a node that does not run syncs nothing")?;
        let said = self.dir.join(format!("strace-{}", node + 1));
        let calls = "fdatasync,fsync";
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-qq", "-p", &pid.to_string(), "-o"])
            .arg(&said)
            .args(["-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:{how}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let strace = strace.spawn().context("starting strace")?;
        Ok(Tracer { strace, said })
    }

    async fn free_bytes(&self, node: usize) -> anyhow::Result<u64> {
        let dir = self.nodes[node].data_dir();
        let dir = dir.to_string_lossy();
        let told = shell::run("df", &["--output=avail", "-B1", dir.as_ref()]).await?;
        let last = told.lines().last().unwrap_or_default().trim();
        last.parse().with_context(|| format!("df says {told:?}"))
    }

    async fn fill(&self, node: usize, bytes: u64) -> anyhow::Result<()> {
        let path = self.nodes[node].data_dir().join(FILLER);
        let mut bytes = bytes;
        // The node writes meanwhile, so the free space may have shrunk.
        while bytes > 0 {
            let length = bytes.to_string();
            let args = ["-l".as_ref(), length.as_ref(), path.as_os_str()];
            if shell::run("fallocate", &args).await.is_ok() {
                return Ok(());
            }
            bytes -= (bytes / 64).max(4_096).min(bytes);
        }
        tokio::fs::write(path, b"").await?;
        Ok(())
    }
}

impl Tracer {
    /// Ends the tracing. Returns true if it had an effect.
    async fn let_go(mut self) -> anyhow::Result<bool> {
        if let Some(pid) = self.strace.id() {
            // The process may have ended, and its tracer with it.
            let _ = shell::signal("INT", pid).await;
        }
        if timeout(LET_GO_WITHIN, self.strace.wait()).await.is_err() {
            self.strace.kill().await?;
        }
        let said = tokio::fs::read(&self.said).await.unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        Ok(said.contains("(INJECTED)") || said.contains("(DELAYED)"))
    }
}

fn names(nodes: &[usize]) -> String {
    let names: Vec<String> = nodes.iter().map(|node| (node + 1).to_string()).collect();
    format!("node {}", names.join(", "))
}
