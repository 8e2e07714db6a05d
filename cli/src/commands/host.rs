//! A node in this process: its disk, its environment in the operating system, and the signals that stop it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rand::TryRngCore;
use rand::rngs::OsRng;
use ropewalk_node::config::Limits;
use ropewalk_node::env::tls::{TlsNet, TlsSettings};
use ropewalk_node::env::{Net, SystemClock, TcpNet};
use ropewalk_node::{Config, Env, Ready, RunError};
use ropewalk_raft_store::data_dir::DataDir;
use ropewalk_raft_store::disk::rocks::RocksOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::quarantine;
use crate::exit::usage;
use crate::logs;

/// Interval between two attempts to reopen the disk after a failure.
const REOPEN_EVERY: Duration = Duration::from_secs(1);
/// Maximum number of attempts: readers of the failed disk must release it first.
const REOPEN_TRIES: u32 = 30;

/// Runs a node until `shutdown`; signals `ready` once it serves. After a disk failure, reopens the disk and
/// runs the node again, as often as that works. A damaged database is set aside, and the node runs on an
/// empty one, which it can fill only from its own cluster.
pub async fn serve(
    data_dir: &Path,
    mut config: Config,
    net: Arc<dyn Net>,
    shutdown: CancellationToken,
    ready: oneshot::Sender<Ready>,
) -> anyhow::Result<()> {
    // The lock on the directory is held until the node has closed its database.
    let locked = DataDir::open(data_dir)?;
    let mut env = first_env(&locked, &config, &net)?;
    let mut ready = Some(ready);
    loop {
        config.member_of = locked.cluster()?;
        let error = match run(&locked, &config, env, &shutdown, &mut ready).await {
            Err(error) if !shutdown.is_cancelled() => error,
            done => return Ok(done?),
        };
        env = match (&error, error.damage()) {
            (_, Some(why)) => {
                quarantine::check(&locked, &config, why)?;
                locked.note_damage(why)?;
                // Opened once more, only to ensure that the failed run has closed it.
                match reopen(&locked, &config.limits, &net).await {
                    Err(error) if quarantine::damage(&error).is_none() => return Err(error),
                    closed => drop(closed),
                }
                quarantine::set_aside(&locked, &config, why)?;
                self::env(&locked, &config.limits, &net)?
            }
            (RunError::DiskFailed(reason), None) => {
                tracing::warn!(%reason, "the disk failed; the node starts again on it");
                let opened = reopen(&locked, &config.limits, &net).await;
                opened.or_else(|error| empty_instead(&locked, &config, &net, error))?
            }
            _ => return Err(error.into()),
        };
    }
}

/// Runs the node once, and remembers its cluster beside the database.
async fn run(
    locked: &DataDir,
    config: &Config,
    env: Env,
    shutdown: &CancellationToken,
    ready: &mut Option<oneshot::Sender<Ready>>,
) -> Result<(), RunError> {
    let (says, is_ready) = oneshot::channel();
    let running = ropewalk_node::run(config.clone(), env, shutdown.clone(), says);
    tokio::pin!(running);
    let said = tokio::select! {
        done = &mut running => return done,
        Ok(said) = is_ready => said,
    };
    if let Err(error) = locked.remember_cluster(&said.cluster_id) {
        tracing::error!(%error, "should its database be damaged, this node cannot come back by itself");
    }
    logs::node_is(said.node_id);
    // Only the first run has a receiver, which may be gone.
    if let Some(ready) = ready.take() {
        let _ = ready.send(said);
    }
    running.await
}

/// Environment of the first run: the node's database, or an empty one if it is damaged.
fn first_env(locked: &DataDir, config: &Config, net: &Arc<dyn Net>) -> anyhow::Result<Env> {
    if let Some(why) = locked.damage()? {
        quarantine::set_aside(locked, config, &why)?;
    }
    env(locked, &config.limits, net).or_else(|error| empty_instead(locked, config, net, error))
}

/// Replaces a database that was rejected as damaged by an empty one.
fn empty_instead(
    locked: &DataDir,
    config: &Config,
    net: &Arc<dyn Net>,
    error: anyhow::Error,
) -> anyhow::Result<Env> {
    let Some(why) = quarantine::damage(&error) else {
        return Err(error);
    };
    quarantine::set_aside(locked, config, &why)?;
    env(locked, &config.limits, net)
}

async fn reopen(locked: &DataDir, limits: &Limits, net: &Arc<dyn Net>) -> anyhow::Result<Env> {
    let mut tries = 1;
    loop {
        match env(locked, limits, net) {
            Err(error) if quarantine::damage(&error).is_some() => return Err(error),
            Err(error) if tries < REOPEN_TRIES => {
                tracing::warn!(%error, tries, "the disk cannot be opened again yet");
                tries += 1;
                tokio::time::sleep(REOPEN_EVERY).await;
            }
            opened => return opened,
        }
    }
}

/// This machine's network, with these TLS settings.
pub async fn network(tls: TlsSettings) -> anyhow::Result<Arc<dyn Net>> {
    let net = TlsNet::new(Arc::new(TcpNet), tls, Arc::new(SystemClock)).await;
    Ok(Arc::new(net.map_err(|error| usage(error.to_string()))?))
}

/// Environment of a node: the disk in its directory, and this machine's clock and network.
fn env(locked: &DataDir, limits: &Limits, net: &Arc<dyn Net>) -> anyhow::Result<Env> {
    let disk = locked.open_disk(RocksOptions {
        database_bytes: limits.database_bytes,
        ..RocksOptions::default()
    })?;
    Ok(Env {
        clock: Arc::new(SystemClock),
        disk: Arc::new(disk),
        net: net.clone(),
        seed: OsRng
            .try_next_u64()
            .context("the system gives no randomness")?,
        log_lines_lost: logs::left_out,
    })
}

/// Cancels `shutdown` at the first SIGINT or SIGTERM, and ends the process at the second.
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
        logs::say("ropewalk: stopped at once, at the second signal; nothing acknowledged is lost");
        logs::end();
        std::process::exit(1);
    });
    Ok(())
}
