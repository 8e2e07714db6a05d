//! The composition root: the only way to start a node, in production and in the simulator.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ropewalk_raft_store::committer::CommitterOptions;
use ropewalk_raft_store::{DiskStatus, Store, StoreError, StoreOptions, seed_randomness};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::transport::Server;
use tonic::transport::server::Router;

use crate::cluster::{Cluster, StartError};
use crate::config::{Config, External};
use crate::coordinator::{Coordinator, LagWatch};
use crate::disk;
use crate::env::{Env, Incoming, Listener};
use crate::grpc;
use crate::metrics::Metrics;
use crate::ops;
use crate::partition::Partitions;
use crate::peer::{Inbound, Peers};
use crate::scrub;

/// How long a stopping node tries to hand its leaderships over.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(5);
/// How long a stopping node waits for calls under way.
const DRAIN_WITHIN: Duration = Duration::from_secs(3);
/// HTTP/2 keep-alive towards clients and peers: how often, and how long until a silent one is dropped.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// HTTP/2 flow-control windows, large enough that a batch of the largest size needs no pause.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// What a node says once it serves.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The id the cluster gave it.
    pub node_id: u64,
    /// The gRPC address it is reached at.
    pub address: String,
    /// The HTTP address, if on.
    pub http: Option<String>,
    /// The cluster it belongs to.
    pub cluster_id: String,
}

/// Why a node could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}; choose another address, or stop what uses it")]
    Listen {
        /// The address asked for.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk failed under the node, and may be well again: run the node again on the disk opened
    /// anew, since what a failed sync left behind is unknown until then.
    #[error("the disk failed: {0}; the node must be started again on it")]
    DiskFailed(String),
    /// The database, or the metadata replica in it, was found damaged while the node ran: it is to be
    /// set aside, and the node run on an empty one.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The metadata replica panicked: a bug, and nothing but a new start brings it back.
    #[error(
        "this node's metadata replica has ended without a reason, which is a bug: please report its log; start the node again"
    )]
    MetadataEnded,
    /// The cluster could not be formed or joined.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl RunError {
    /// What is damaged, if the node can't go on because its database is.
    pub fn damage(&self) -> Option<&str> {
        match self {
            RunError::Store(error) => error.damage(),
            RunError::Damaged(what) => Some(what),
            RunError::Start(error) => error.damage(),
            _ => None,
        }
    }
}

/// Runs a node until `shutdown`, then hands over its leaderships, flushes and returns.
pub async fn run(
    config: Config,
    env: Env,
    shutdown: CancellationToken,
    ready: oneshot::Sender<Ready>,
) -> Result<(), RunError> {
    seed_randomness(env.seed);
    // Dropped with this function, so that no connection outlives it.
    let connections = CancellationToken::new();
    let cut = connections.clone().drop_guard();
    let incoming =
        |listener| Incoming::new(listener, config.limits.connections, connections.clone());
    let grpc = listening(&config.listen, env.net.listen(&config.listen)).await?;
    let grpc = incoming(grpc);
    let mut connections_seen = vec![("grpc", grpc.seen())];
    let external = match &config.external {
        Some(External { listen, .. }) => {
            let listener = listening(listen, env.net.listen(listen)).await?;
            let external = incoming(listener);
            connections_seen.push(("external", external.seen()));
            Some(external)
        }
        None => None,
    };
    let http = match &config.http {
        Some(address) => {
            let listener = listening(address, env.net.listen_for_operators(address)).await?;
            Some(incoming(listener))
        }
        None => None,
    };
    let store = Store::open(env.disk.clone(), store_options(&config)).await?;
    let peers = Peers::new(env.net.clone(), &config.limits);
    let inbound = Inbound::new(&config.limits);
    let cluster = Cluster::new(&config, &env, &store, &peers, &inbound).await?;
    let metrics = Metrics::new(&config.limits);
    let client_service = grpc::Service::new(metrics.clone());

    let tasks = TaskTracker::new();
    let stop_serving = CancellationToken::new();
    let inside = server()
        .add_service(client_service.server())
        .add_service(inbound.service())
        .add_service(cluster.service());
    tasks.spawn(serve(inside, grpc, stop_serving.clone()));
    if let Some(external) = external {
        let outside = server().add_service(client_service.for_outside().server());
        tasks.spawn(serve(outside, external, stop_serving.clone()));
    }
    // From the first moment: a node may wait for its cluster for long, and is alive meanwhile.
    let seen = http.map(|incoming| {
        connections_seen.push(("http", incoming.seen()));
        let seen = Arc::new(ops::Seen {
            store: store.clone(),
            cluster: cluster.clone(),
            peers: peers.clone(),
            net: env.net.clone(),
            clock: env.clock.clone(),
            log_lines_lost: env.log_lines_lost,
            metrics: metrics.clone(),
            limits: config.limits.clone(),
            rack: config.rack.clone(),
            connections: connections_seen,
            stopping: shutdown.clone(),
            joined: Default::default(),
        });
        tasks.spawn(ops::serve(incoming, seen.clone(), stop_serving.clone()));
        seen
    });

    let mut outcome = Ok(());
    let joined = tokio::select! {
        joined = cluster.start() => match joined {
            Ok(()) => true,
            Err(error) if error.damage().is_some() || !has_failed(&store) => {
                outcome = Err(error.into());
                false
            }
            Err(_) => {
                let reason = disk::watch(&config.limits, &env, &store, &inbound).await;
                outcome = Err(RunError::DiskFailed(reason));
                false
            }
        },
        // A place that can't be kept would be asked for again for ever.
        reason = disk::watch(&config.limits, &env, &store, &inbound) => {
            outcome = Err(RunError::DiskFailed(reason));
            false
        }
        () = shutdown.cancelled() => false,
    };
    if joined {
        let partitions = Partitions::start(&config, &store, &peers, &inbound, &cluster, &metrics);
        let stop_coordinating = CancellationToken::new();
        let _coordinating = stop_coordinating.clone().drop_guard();
        let coordinator = Coordinator::start(
            &cluster,
            &partitions,
            &peers,
            &config.limits,
            &metrics,
            stop_coordinating,
        );
        let _watching = seen.map(|seen| {
            let lag = LagWatch::default();
            let joined = ops::Joined {
                partitions: partitions.clone(),
                lag: lag.clone(),
                returning: ops::Returning::new(&cluster).into(),
            };
            // Nobody else sets it.
            let _ = seen.joined.set(joined);
            AbortOnDropHandle::new(tokio::spawn(lag.run(coordinator.clone())))
        });
        client_service.begin(grpc::Serving {
            cluster: cluster.clone(),
            partitions: partitions.clone(),
            coordinator,
            peers: peers.clone(),
            env: env.clone(),
            limits: config.limits.clone(),
            producer_ids: Default::default(),
            router: Default::default(),
            filtering: Default::default(),
        });
        let _scrubbing = AbortOnDropHandle::new(tokio::spawn({
            let (limits, store) = (config.limits.clone(), store.clone());
            let (cluster, partitions) = (cluster.clone(), partitions.clone());
            let metrics = metrics.clone();
            async move { scrub::run(&limits, &store, &cluster, &partitions, &metrics).await }
        }));
        // Nobody has to listen for it.
        let _ = ready.send(Ready {
            node_id: cluster.node_id().0,
            address: config.advertise.clone(),
            http: config.http.clone(),
            cluster_id: cluster.view().borrow().cluster_id.clone(),
        });
        tokio::select! {
            () = shutdown.cancelled() => {
                partitions.hand_over_all(HAND_OVER_WITHIN).await;
                cluster.hand_over(HAND_OVER_WITHIN).await;
            }
            reason = disk::watch(&config.limits, &env, &store, &inbound) => {
                outcome = Err(RunError::DiskFailed(reason));
            }
            () = cluster.ended() => outcome = Err(RunError::MetadataEnded),
            what = damaged(&store, &cluster) => {
                tracing::error!(what, "the database is damaged: this node stops");
                partitions.hand_over_all(HAND_OVER_WITHIN).await;
                outcome = Err(RunError::Damaged(what));
            }
        }
        partitions.shutdown().await;
    }
    // Peers keep their lanes open; without this, serving would not end.
    inbound.close();
    stop_serving.cancel();
    tasks.close();
    let _ = tokio::time::timeout(DRAIN_WITHIN, tasks.wait()).await;
    // Who still holds a connection holds the disk, which may have to be opened again.
    drop(cut);
    cluster.shutdown().await;
    store.close().await;
    outcome
}

fn has_failed(store: &Store) -> bool {
    matches!(*store.disk_status().borrow(), DiskStatus::Failed(_))
}

/// Returns once what no replica of a partition can be blamed for was found damaged.
async fn damaged(store: &Store, cluster: &Cluster) -> String {
    let mut damage = store.damage();
    let found = async {
        let found = damage.wait_for(Option::is_some).await;
        found.ok().and_then(|found| found.clone())
    };
    tokio::select! {
        Some(what) = found => what,
        what = cluster.damaged() => what,
    }
}

fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

async fn serve(services: Router, incoming: Incoming, stop: CancellationToken) {
    let served =
        services.serve_with_incoming_shutdown(incoming.into_stream(), stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the gRPC listener stopped");
    }
}

async fn listening(
    address: &str,
    listening: impl Future<Output = io::Result<Box<dyn Listener>>>,
) -> Result<Box<dyn Listener>, RunError> {
    listening.await.map_err(|source| RunError::Listen {
        address: address.to_string(),
        source,
    })
}

fn store_options(config: &Config) -> StoreOptions {
    StoreOptions {
        committer: CommitterOptions {
            queue_bytes: config.limits.commit_queue_bytes,
            free_space_floor_bytes: config.limits.free_space_floor_bytes,
            ..CommitterOptions::default()
        },
        tail_bytes: config.limits.log_tail_bytes,
        read_bytes: config.limits.append_bytes,
    }
}
