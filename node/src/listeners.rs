//! The ports of a node. The node binds all of them before it does anything else, so that it reports an
//! occupied one at once.

use std::io;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::{Config, Limits};
use crate::env::{ConnectionBounds, Connections, Env, Incoming, Listener};

/// Refusal of the operating system to open a port.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {source}; choose another address, or stop the process that uses it"
)]
pub struct ListenError {
    /// Configured address.
    pub address: String,
    /// Error of the operating system.
    pub source: io::Error,
}

pub(crate) struct Listeners {
    /// For clients and peers.
    pub grpc: Incoming,
    /// For clients outside the cluster's network.
    pub external: Option<Incoming>,
    /// For operators.
    pub http: Option<Incoming>,
    /// For probes alone.
    pub probes: Option<Incoming>,
}

impl Listeners {
    /// Binds all ports. Their connections break once `cut` is cancelled.
    pub async fn open(
        config: &Config,
        env: &Env,
        cut: &CancellationToken,
    ) -> Result<Listeners, ListenError> {
        let incoming = |listener, most: usize| {
            let bounds = ConnectionBounds {
                all: most,
                per_address: most.div_ceil(2),
            };
            Incoming::new(listener, bounds, cut.clone())
        };
        let Limits {
            connections,
            probe_connections,
            ..
        } = config.limits;
        let grpc = bound(&config.listen, env.net.listen(&config.listen)).await?;
        let external = match &config.external {
            Some(external) => {
                let listening = env.net.listen(&external.listen);
                Some(bound(&external.listen, listening).await?)
            }
            None => None,
        };
        let http = match &config.http {
            Some(address) => Some(bound(address, env.net.listen_for_operators(address)).await?),
            None => None,
        };
        let probes = match &config.probes {
            Some(address) => Some(bound(address, env.net.listen_for_probes(address)).await?),
            None => None,
        };
        Ok(Listeners {
            grpc: incoming(grpc, connections),
            external: external.map(|listener| incoming(listener, connections)),
            http: http.map(|listener| incoming(listener, connections)),
            probes: probes.map(|listener| incoming(listener, probe_connections)),
        })
    }

    /// Connections of each port, with the port's name.
    pub fn connections(&self) -> Vec<(&'static str, Arc<Connections>)> {
        let external = self.external.as_ref().map(|port| ("external", port.seen()));
        let http = self.http.as_ref().map(|port| ("http", port.seen()));
        let probes = self.probes.as_ref().map(|port| ("probes", port.seen()));
        let grpc = Some(("grpc", self.grpc.seen()));
        let ports = [grpc, external, http, probes];
        ports.into_iter().flatten().collect()
    }
}

async fn bound(
    address: &str,
    listening: impl Future<Output = io::Result<Box<dyn Listener>>>,
) -> Result<Box<dyn Listener>, ListenError> {
    listening.await.map_err(|source| ListenError {
        address: address.to_string(),
        source,
    })
}
