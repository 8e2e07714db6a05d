//! A node in this process: its disk, its place in the operating system, and the signals that end it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rand::TryRngCore;
use rand::rngs::OsRng;
use ropewalk_node::config::Limits;
use ropewalk_node::env::{SystemClock, TcpNet};
use ropewalk_node::{Config, Env, Ready, RunError};
use ropewalk_raft_store::data_dir::DataDir;
use ropewalk_raft_store::disk::rocks::RocksOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Between two tries to open the disk again after it failed.
const REOPEN_EVERY: Duration = Duration::from_secs(1);
/// How often it is tried: what still reads from the failed disk has to let go of it first.
const REOPEN_TRIES: u32 = 30;

/// Runs a node until `shutdown`; says through `ready` when it serves. A disk that failed is opened
/// anew, and the node run again on it, for as long as that works.
pub async fn serve(
    data_dir: &Path,
    config: Config,
    shutdown: CancellationToken,
    ready: oneshot::Sender<Ready>,
) -> anyhow::Result<()> {
    // The lock on the directory is held until the node has closed its database.
    let locked = DataDir::open(data_dir)?;
    let mut env = env(&locked, &config.limits)?;
    let mut ready = Some(ready);
    loop {
        // Only the first run has somebody to tell.
        let ready = ready.take().unwrap_or_else(|| oneshot::channel().0);
        match ropewalk_node::run(config.clone(), env, shutdown.clone(), ready).await {
            Err(RunError::DiskFailed(reason)) if !shutdown.is_cancelled() => {
                tracing::warn!(%reason, "the disk failed; the node starts again on it");
            }
            done => return Ok(done?),
        }
        env = reopen(&locked, &config.limits).await?;
    }
}

async fn reopen(locked: &DataDir, limits: &Limits) -> anyhow::Result<Env> {
    let mut tries = 1;
    loop {
        match env(locked, limits) {
            Err(error) if tries < REOPEN_TRIES => {
                tracing::warn!(%error, tries, "the disk cannot be opened again yet");
                tries += 1;
                tokio::time::sleep(REOPEN_EVERY).await;
            }
            opened => return opened,
        }
    }
}

/// What a node rests on here: the disk in its directory, and this machine's clock and network.
fn env(locked: &DataDir, limits: &Limits) -> anyhow::Result<Env> {
    let disk = locked.open_disk(RocksOptions {
        database_bytes: limits.database_bytes,
        ..RocksOptions::default()
    })?;
    Ok(Env {
        clock: Arc::new(SystemClock),
        disk: Arc::new(disk),
        net: Arc::new(TcpNet),
        seed: OsRng
            .try_next_u64()
            .context("the system gives no randomness")?,
    })
}

/// Ends `shutdown` at the first SIGINT or SIGTERM, and the process at the second.
pub fn stop_on_signals(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let mut either = async || {
            tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            }
        };
        let which = either().await;
        tracing::info!(
            signal = which,
            "stopping: handing over leaderships; once more to stop at once"
        );
        shutdown.cancel();
        either().await;
        eprintln!("ropewalk: stopped at once, at the second signal; nothing acknowledged is lost");
        std::process::exit(1);
    });
    Ok(())
}
