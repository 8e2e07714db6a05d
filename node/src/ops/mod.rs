//! The HTTP endpoints for operators and orchestrators. Liveness is about this process alone: a node cut off
//! from the others must not be restarted for it. Readiness is about this node alone.

mod collect;
mod listener;
mod ready;
mod scrape;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use parking_lot::Mutex;
use ropewalk_raft_store::Store;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::config::Limits;
use crate::coordinator::LagCollector;
use crate::env::{Clock, Connections, Incoming, Net};
use crate::metrics::Metrics;
use crate::partition::ReplicaManager;
use crate::peer::Peers;

pub use ready::InitialCatchUp;

/// The sources of a node's health and metrics.
#[derive(Debug)]
pub struct OpsContext {
    /// The node's store.
    pub store: Store,
    /// The node's cluster.
    pub cluster: Cluster,
    /// The connections to other nodes.
    pub peers: Peers,
    /// Sockets and their security.
    pub net: Arc<dyn Net>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Number of log lines that the log's writer had no room for.
    pub log_lines_lost: fn() -> u64,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
    /// Its limits.
    pub limits: Limits,
    /// Its rack.
    pub rack: String,
    /// The connections of each port, by the port's name.
    pub connections: Vec<(&'static str, Arc<Connections>)>,
    /// Cancelled once the node is asked to stop.
    pub stopping: CancellationToken,
    /// Parts that exist once it is in its cluster.
    pub joined: OnceLock<Services>,
}

/// The parts of a node that exist once it is in its cluster.
#[derive(Debug)]
pub struct Services {
    /// Its replicas.
    pub partitions: ReplicaManager,
    /// The lag of its groups.
    pub lag: LagCollector,
    /// The replicas that have not caught up since the node began.
    pub returning: Mutex<InitialCatchUp>,
}

/// Serves `/healthz`, `/readyz` and `/metrics` until `stop`.
pub async fn serve(incoming: Incoming, seen: Arc<OpsContext>, stop: CancellationToken) {
    let scrapes = Arc::new(scrape::Scrapes::new(seen.clone()));
    let head_within = head_within(&seen);
    let metrics = get(scrape::metrics).with_state(scrapes);
    let router = health(seen).route("/metrics", metrics);
    listener::serve(incoming, router, head_within, stop).await;
}

/// Serves `/healthz` and `/readyz` alone until `stop`.
pub async fn serve_probes(incoming: Incoming, seen: Arc<OpsContext>, stop: CancellationToken) {
    let head_within = head_within(&seen);
    listener::serve(incoming, health(seen), head_within, stop).await;
}

fn health(seen: Arc<OpsContext>) -> Router {
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready::readyz).with_state(seen))
}

fn head_within(seen: &OpsContext) -> Duration {
    Duration::from_millis(seen.limits.http_head_within_ms)
}
