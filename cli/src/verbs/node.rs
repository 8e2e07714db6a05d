//! `ropewalk node`: one node, until it is told to stop.

use ropewalk_node::Ready;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::host;
use crate::args::{Global, NodeArgs};
use crate::output;
use crate::settings;

/// What the line `ready {…}` says.
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
    let settings = settings::load(&args, global)?;
    let net = host::network(settings.tls).await?;
    let shutdown = CancellationToken::new();
    host::stop_on_signals(shutdown.clone())?;
    let (ready, is_ready) = oneshot::channel();
    let serving = host::serve(&settings.data_dir, settings.config, net, shutdown, ready);
    tokio::pin!(serving);
    tokio::select! {
        done = &mut serving => return done,
        Ok(ready) = is_ready => say(ready),
    }
    serving.await
}

/// Whoever started the node may have stopped listening; the node goes on.
fn say(ready: Ready) {
    if let Err(error) = output::ready(&ReadyLine::from(ready)) {
        tracing::warn!(%error, "the ready line could not be printed");
    }
}
