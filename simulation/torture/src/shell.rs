//! Commands of the operating system. Each runs to its end.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;
use tokio::time::timeout;

/// Time limit of a command that should take milliseconds.
const WITHIN: Duration = Duration::from_secs(20);

/// Runs a command. Returns its output, or fails with its error output.
pub async fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let shown = || {
        let args: Vec<_> = args
            .iter()
            .map(|arg| arg.as_ref().to_string_lossy())
            .collect();
        format!("{program} {}", args.join(" "))
    };
    let output = timeout(WITHIN, command.output())
        .await
        .with_context(|| format!("{} does not end", shown()))?
        .with_context(|| format!("{} cannot be run", shown()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{} failed: {}",
        shown(),
        said.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command written as one line, split at its spaces.
pub async fn line(text: &str) -> anyhow::Result<String> {
    let mut words = text.split_whitespace();
    let program = words.next().context("an empty command")?;
    let args: Vec<&str> = words.collect();
    run(program, &args).await
}

/// Sends a signal, by its name, to one process.
pub async fn signal(name: &str, pid: u32) -> anyhow::Result<()> {
    let told = format!("kill -{name} {pid}");
    run("sh", &["-c", &told]).await.map(drop)
}
