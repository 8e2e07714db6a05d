//! A node in this process: its disk, its place in the operating system, and the signals that end it.

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

/// Between two tries to open the disk again after it failed.
const REOPEN_EVERY: Duration = Duration::from_secs(1);
/// How often it is tried: what still reads from the failed disk has to let go of it first.
const REOPEN_TRIES: u32 = 30;

/// Runs a node until `shutdown`; says through `ready` when it serves. A disk that failed is opened
/// anew, and the node run again on it, for as long as that works. A database that is damaged is set
/// aside, and the node run on an empty one, which it can only fill from its own cluster.
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
                // Opened once more only to be sure that nobody has it open.
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

/// Runs the node once, and keeps beside its database which cluster it is in.
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
    // Only the first run has somebody to tell, and they need not listen.
    if let Some(ready) = ready.take() {
        let _ = ready.send(said);
    }
    running.await
}

/// What the node first rests on: its database, or an empty one if that is damaged.
fn first_env(locked: &DataDir, config: &Config, net: &Arc<dyn Net>) -> anyhow::Result<Env> {
    if let Some(why) = locked.damage()? {
        quarantine::set_aside(locked, config, &why)?;
    }
    env(locked, &config.limits, net).or_else(|error| empty_instead(locked, config, net, error))
}

/// An empty database instead of one that was refused as damaged.
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

/// This machine's network, secured as these settings say.
pub async fn network(tls: TlsSettings) -> anyhow::Result<Arc<dyn Net>> {
    let net = TlsNet::new(Arc::new(TcpNet), tls, Arc::new(SystemClock)).await;
    Ok(Arc::new(net.map_err(|error| usage(error.to_string()))?))
}

/// What a node rests on here: the disk in its directory, and this machine's clock and network.
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
        logs::say("ropewalk: stopped at once, at the second signal; nothing acknowledged is lost");
        logs::end();
        std::process::exit(1);
    });
    Ok(())
}
