//! One node: its process, its folder, its wall clock. Its process ends with the [`Node`].

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::shell;

/// Number of log lines that an error quotes.
const QUOTED_LINES: usize = 12;

/// Start command of a node.
#[derive(Debug, Clone)]
pub struct Start {
    /// Words before the program.
    pub enter: Vec<String>,
    /// The ropewalk binary.
    pub binary: PathBuf,
    /// Its flags.
    pub flags: Vec<String>,
    /// Library that shifts its wall clock.
    pub clock: Option<PathBuf>,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    start: Start,
    dir: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// A node that keeps everything in `dir`. It does not run yet.
    pub fn new(dir: PathBuf, start: Start) -> anyhow::Result<Node> {
        std::fs::create_dir_all(dir.join("data"))?;
        let node = Node {
            start,
            dir,
            child: None,
        };
        node.set_clock(Duration::ZERO, false)?;
        Ok(node)
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Log of all its processes.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// End of its log.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
    }

    /// Id of its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Starts its process.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))?;
        let mut words = self.start.enter.iter();
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(&self.start.binary);
                command
            }
            None => Command::new(&self.start.binary),
        };
        command
            .args(["node", "--data-dir"])
            .arg(self.data_dir())
            .args(&self.start.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        if let Some(library) = &self.start.clock {
            command
                .env("LD_PRELOAD", library)
                .env("TORTURE_CLOCK_OFFSET", self.clock_file());
        }
        let spawned = command.spawn();
        self.child = Some(spawned.with_context(|| self.start.binary.display().to_string())?);
        Ok(())
    }

    /// Kills it with SIGKILL, if it runs.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        match self.child.take() {
            Some(mut child) => child.kill().await.context("killing a node"),
            None => Ok(()),
        }
    }

    /// Stops it with SIGTERM and waits for its end. Fails if it does not end with success.
    pub async fn stop(&mut self, within: Duration) -> anyhow::Result<()> {
        self.signal("TERM").await?;
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let ended = timeout(within, child.wait()).await;
        let status = ended.context("a node does not stop")??;
        ensure!(
            status.success(),
            "a node that was told to stop ended with {status}:\n{}",
            self.last_words()
        );
        Ok(())
    }

    /// Sets its binary, as of its next start.
    pub fn set_binary(&mut self, binary: &Path) {
        self.start.binary = binary.to_path_buf();
    }

    /// Sets a flag, as of its next start. It replaces an earlier one of that name.
    pub fn set_flag(&mut self, name: &str, value: &str) {
        let flags = &mut self.start.flags;
        if let Some(at) = flags.iter().position(|flag| flag == name) {
            flags.drain(at..(at + 2).min(flags.len()));
        }
        flags.extend([name.to_owned(), value.to_owned()]);
    }

    /// Exit status, if it has ended by itself since the last call.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let ended = child.try_wait()?;
        if ended.is_some() {
            self.child = None;
        }
        Ok(ended)
    }

    /// Sends it a signal, if it runs.
    pub async fn signal(&self, name: &str) -> anyhow::Result<()> {
        match self.pid() {
            Some(pid) => shell::signal(name, pid).await,
            None => Ok(()),
        }
    }

    /// Sets the error of its wall clock.
    pub fn set_clock(&self, by: Duration, back: bool) -> anyhow::Result<()> {
        let by = i64::try_from(by.as_nanos())?;
        let offset: i64 = if back { -by } else { by };
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.clock_file())?;
        file.write_all_at(&offset.to_ne_bytes(), 0)?;
        Ok(())
    }

    fn clock_file(&self) -> PathBuf {
        self.dir.join("clock")
    }

    /// Flips one bit of one file of its database, chosen by `draw`. Returns its place.
    pub fn flip_a_bit(&self, draw: u64) -> anyhow::Result<Option<String>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(self.data_dir().join("db"))? {
            let path = entry?.path();
            if is_of_records(&path) && std::fs::metadata(&path)?.len() > 0 {
                files.push(path);
            }
        }
        files.sort();
        if files.is_empty() {
            return Ok(None);
        }
        let path = &files[usize::try_from(draw % files.len() as u64)?];
        let file = File::options().read(true).write(true).open(path)?;
        let at = (draw >> 8) % file.metadata()?.len();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << (draw % 8);
        file.write_all_at(&byte, at)?;
        Ok(Some(format!("{} at {at}", path.display())))
    }
}

/// True for write-ahead logs, tables and blob files.
fn is_of_records(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("log" | "sst" | "blob"))
}
