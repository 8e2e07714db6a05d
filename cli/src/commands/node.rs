//! `ropewalk node`: one node, until it is stopped.

use std::future::pending;
use std::time::Duration;

use ropewalk_node::Ready;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::host;
use crate::args::{Global, NodeArgs};
use crate::output;
use crate::settings;

/// Maximum wait for the node's registration before the ready line.
const REGISTERED_WITHIN: Duration = Duration::from_secs(2);

/// Content of the line `ready {…}`.
#[derive(Debug, Serialize)]
pub struct ReadyLine {
    pub node_id: u64,
    pub address: String,
    pub http: Option<String>,
    pub cluster_id: String,
}

impl From<Ready> for ReadyLine {
    fn from(ready: Ready) -> ReadyLine {
        let Ready {
            node_id,
            address,
            http,
            cluster_id,
            registered: _,
        } = ready;
        ReadyLine {
            node_id,
            address,
            http,
            cluster_id,
        }
    }
}

pub async fn run(args: NodeArgs, global: &Global) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    host::stop_on_signals(shutdown.clone())?;
    let settings = settings::load(&args, global)?;
    let net = host::network(settings.tls).await?;
    let (ready, is_ready) = oneshot::channel();
    let serving = host::serve(&settings.data_dir, settings.config, net, shutdown, ready);
    tokio::pin!(serving);
    let announcing = async {
        if let Ok(ready) = is_ready.await {
            announce(ready).await;
        }
        pending().await
    };
    tokio::select! {
        done = &mut serving => done,
        done = announcing => done,
    }
}

/// Announces that the node serves, unless its cluster rejects it. Without a majority no node can reject it,
/// so the line is printed after a timeout.
async fn announce(mut ready: Ready) {
    let registered = ready.registered.wait_for(|registered| *registered);
    let refused = match timeout(REGISTERED_WITHIN, registered).await {
        Ok(registered) => registered.is_err(),
        Err(_) => false,
    };
    if !refused {
        say(ready);
    }
}

/// Prints the ready line. Its reader may be gone; the node continues.
fn say(ready: Ready) {
    if let Err(error) = output::ready(&ReadyLine::from(ready)) {
        tracing::warn!(%error, "ready line not written to stdout");
    }
}
