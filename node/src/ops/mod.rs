//! What operators and orchestrators see over HTTP. Liveness is about this process alone: a node
//! that is cut off from the others must not be restarted for it.

mod listener;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use ropewalk_raft_store::Store;
use ropewalk_raft_store::committer::DiskStatus;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::env::Incoming;

/// What health is judged from.
#[derive(Debug, Clone)]
pub struct Health {
    /// The node's store.
    pub store: Store,
    /// The node's cluster.
    pub cluster: Cluster,
}

/// Serves `/healthz` and `/readyz` until `stop`.
pub async fn serve(incoming: Incoming, health: Health, stop: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(health));
    let served = axum::serve(incoming, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the HTTP listener stopped");
    }
}

#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    node_id: u64,
    why_not: Vec<String>,
}

async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, Json<Readiness>) {
    let mut why_not = Vec::new();
    let own = health.cluster.node_id();
    if !health.cluster.view().borrow().nodes.contains_key(&own) {
        why_not.push("this node is in no cluster yet; its log says what it waits for".to_string());
    } else if health.cluster.controller().is_none() {
        why_not.push("the metadata group has no leader that this node knows of".to_string());
    }
    match &*health.store.disk_status().borrow() {
        DiskStatus::Healthy => {}
        DiskStatus::Full => why_not.push("the disk is full; writes are refused".to_string()),
        DiskStatus::Failed(reason) => why_not.push(format!("the disk failed: {reason}")),
    }
    let ready = why_not.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(Readiness {
            ready,
            node_id: own.0,
            why_not,
        }),
    )
}
