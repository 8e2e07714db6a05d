//! A node in this process: its environment in the operating system, and the signals that stop it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rand::rngs::{OsRng, StdRng};
use rand::{RngCore, SeedableRng, TryRngCore};
use ropewalk_node::env::tls::{TlsNet, TlsSettings};
use ropewalk_node::env::{Net, SystemClock, TcpNet};
use ropewalk_node::supervise::{LocalDirectory, supervise};
use ropewalk_node::{Config, Env, Ready};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::exit::usage;
use crate::logs;

/// Runs a node in `data_dir` until `shutdown`; signals `ready` once it serves. The node decides about the life of
/// its database.
pub async fn serve(
    data_dir: &Path,
    config: Config,
    net: Arc<dyn Net>,
    shutdown: CancellationToken,
    ready: oneshot::Sender<Ready>,
) -> anyhow::Result<()> {
    // The lock on the directory is held until the node has closed its database.
    let directory = LocalDirectory::open(data_dir, &config.limits)?;
    let mut seeds = StdRng::seed_from_u64(system_seed()?);
    // This machine's clock and network, and another seed for each run.
    let env = |disk| Env {
        clock: Arc::new(SystemClock),
        disk,
        net: net.clone(),
        seed: seeds.next_u64(),
        log_lines_lost: logs::left_out,
    };
    let mut ready = Some(ready);
    let on_ready = |said: Ready| {
        logs::node_is(said.node_id);
        // Only the first run has a receiver, which may be gone.
        if let Some(ready) = ready.take() {
            let _ = ready.send(said);
        }
    };
    Ok(supervise(&directory, config, env, on_ready, shutdown).await?)
}

fn system_seed() -> anyhow::Result<u64> {
    let drawn = OsRng.try_next_u64();
    drawn.context("the system gives no randomness")
}

/// This machine's network, with these TLS settings.
pub async fn network(tls: TlsSettings) -> anyhow::Result<Arc<dyn Net>> {
    let net = TlsNet::new(Arc::new(TcpNet), tls, Arc::new(SystemClock)).await;
    Ok(Arc::new(net.map_err(|error| usage(error.to_string()))?))
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
