//! A run in a separate process: a leak, abort or hang stays inside it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use ropewalk_proto::planted_bug::PlantedBug;
use tokio::process::Command;
use tokio::time::timeout;

use super::Job;
use super::report::Report;

/// Number of characters kept of a dead process's last output.
const LAST_WORDS: usize = 2_000;

/// Settings of the processes for runs.
#[derive(Debug, Clone)]
pub struct Children {
    /// The simulator's own binary.
    pub program: PathBuf,
    /// Wall time after which a run counts as hanging and its process is killed.
    pub bound: Duration,
    /// Bug planted in them.
    pub mistake: Option<PlantedBug>,
}

impl Children {
    /// Processes of the binary that is running.
    ///
    /// # Errors
    /// If the binary can no longer be found.
    pub fn of_this_binary(bound: Duration) -> io::Result<Children> {
        let program = std::env::current_exe()?;
        Ok(Children {
            program,
            bound,
            mistake: None,
        })
    }

    /// The same settings with a planted bug. The binary must support it.
    pub fn with(&self, mistake: PlantedBug) -> Children {
        Children {
            mistake: Some(mistake),
            ..self.clone()
        }
    }

    /// Runs a job, and writes its trace to a file if one is given.
    pub async fn run(&self, job: &Job, trace: Option<&Path>) -> Report {
        let mut command = self.command();
        command.args(job.arguments());
        if let Some(trace) = trace {
            command.arg("--trace").arg(trace);
        }
        self.report(command).await
    }

    /// Runs a plan from a file.
    pub async fn run_plan(&self, plan: &Path) -> Report {
        let mut command = self.command();
        command.arg("--plan").arg(plan);
        self.report(command).await
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["one", "-o", "json"])
            .stdin(Stdio::null())
            // The trace has all log lines, and the runner reads the output to its end.
            .env_remove("RUST_LOG")
            // Dropping the child kills the process.
            .kill_on_drop(true);
        if let Some(mistake) = self.mistake {
            command.arg("--mistake").arg(mistake.name());
        }
        command
    }

    async fn report(&self, mut command: Command) -> Report {
        match timeout(self.bound, command.output()).await {
            Ok(Ok(output)) => read(&output),
            Ok(Err(error)) => Report::failed("process", format!("it could not be run: {error}")),
            Err(_) => {
                let what = format!("not done after {:?} by the wall", self.bound);
                Report::failed("hang", what)
            }
        }
    }
}

/// The report is the last line; a process that died has none.
fn read(output: &Output) -> Report {
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().next_back().unwrap_or_default();
    let report = serde_json::from_str::<Report>(last);
    match report {
        Ok(report) if report.violations.is_empty() == output.status.success() => report,
        _ => {
            let words = String::from_utf8_lossy(&output.stderr);
            let skipped = words.chars().count().saturating_sub(LAST_WORDS);
            let words: String = words.chars().skip(skipped).collect();
            let what = format!("{}; its last words: {}", output.status, words.trim());
            Report::failed("process", what)
        }
    }
}
