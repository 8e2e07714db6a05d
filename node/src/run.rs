//! The composition root: the only way to start a node, in production and in the simulator.

use std::sync::Arc;
use std::time::Duration;

use ropewalk_machines::meta::frozen::LARGEST_BATCH_BYTES;
use ropewalk_machines::meta::view::MetadataImage;
use ropewalk_raft_store::committer::CommitterOptions;
use ropewalk_raft_store::{DiskStatus, Store, StoreError, StoreOptions, seed_randomness};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::transport::server::Router;

use crate::cluster::{Cluster, StartError};
use crate::config::Config;
use crate::coordinator::{Coordinator, LagCollector};
use crate::disk;
use crate::env::{Connections, Env, Incoming};
use crate::grpc;
use crate::guard::Guard;
use crate::http2;
use crate::listeners::{ListenError, Listeners};
use crate::metrics::Metrics;
use crate::ops;
use crate::partition::ReplicaManager;
use crate::peer::{Peers, ReplicaRouter};
use crate::scrub;
use crate::service::{Availability, Serving};

/// Maximum time that a stopping node spends on transferring its leaderships.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(5);
/// Maximum time that a stopping node waits for calls in flight.
const DRAIN_WITHIN: Duration = Duration::from_secs(3);

/// Facts about a node, sent once it serves.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Id that the cluster assigned to the node.
    pub node_id: u64,
    /// Advertised gRPC address.
    pub address: String,
    /// Address of the HTTP listener, if on.
    pub http: Option<String>,
    /// Cluster that the node belongs to.
    pub cluster_id: String,
    /// True once the cluster has accepted this start of the node. The cluster refuses a copy of a data
    /// directory, and gives no answer while no majority is up. Closed when the node ends.
    pub registered: watch::Receiver<bool>,
}

/// Reason why a node could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address is in use, or does not belong to this machine.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The data directory could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk failed under the node, and may have recovered. The node must be run again on a reopened disk,
    /// because the effect of a failed sync is unknown until then.
    #[error("disk failed: {0}; check the disk of this node")]
    DiskFailed(String),
    /// The database, or the metadata replica in it, was found damaged while the node ran. The database must be
    /// set aside, and the node run on an empty one.
    #[error("database is damaged: {0}")]
    Damaged(String),
    /// The metadata replica panicked, which is a bug. Only a restart of the node brings it back.
    #[error(
        "metadata replica terminated unexpectedly (bug); please report the log, then restart the \
         node"
    )]
    MetadataEnded,
    /// The cluster could not be formed or joined.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl RunError {
    /// Returns a description of the damage, if the node cannot go on because of a damaged database.
    pub fn damage(&self) -> Option<&str> {
        match self {
            RunError::Store(error) => error.damage(),
            RunError::Damaged(what) => Some(what),
            RunError::Start(error) => error.damage(),
            _ => None,
        }
    }
}

/// Runs a node until `shutdown`, then transfers its leaderships, flushes and returns.
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
    let ports = Listeners::open(&config, &env, &connections).await?;
    let node = Node::open(config, env).await?;
    let seen = node.serve(ports, &shutdown);
    let outcome = match node.join(&shutdown).await {
        Ok(true) => node.work(seen, &shutdown, ready).await,
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    node.stop(cut).await;
    outcome
}

/// Parts of a node that live from its start to its end.
struct Node {
    config: Config,
    env: Env,
    store: Store,
    peers: Peers,
    inbound: ReplicaRouter,
    cluster: Cluster,
    metrics: Arc<Metrics>,
    availability: Availability,
    clients: grpc::Service,
    guard: Guard,
    tasks: TaskTracker,
    stop_serving: CancellationToken,
}

impl Node {
    async fn open(config: Config, env: Env) -> Result<Node, RunError> {
        let store = Store::open(env.disk.clone(), store_options(&config)).await?;
        let peers = Peers::new(env.net.clone(), &config.limits);
        let inbound = ReplicaRouter::new(&config.limits);
        let cluster = Cluster::new(&config, &env, &store, &peers, &inbound).await?;
        let metrics = Metrics::new(&config.limits);
        let guard = Guard::for_clients(&config.limits, LARGEST_BATCH_BYTES);
        let availability = Availability::default();
        let clients = grpc::Service::new(availability.clone(), metrics.clone(), guard.clone());
        Ok(Node {
            store,
            peers,
            inbound,
            cluster,
            availability,
            clients,
            guard,
            metrics,
            tasks: TaskTracker::new(),
            stop_serving: CancellationToken::new(),
            config,
            env,
        })
    }

    /// Serves every port from the start: a node may wait long for its cluster, and is alive meanwhile.
    fn serve(
        &self,
        ports: Listeners,
        shutdown: &CancellationToken,
    ) -> Option<Arc<ops::OpsContext>> {
        let connections = ports.connections();
        let limits = &self.config.limits;
        let peers = Guard::for_peers(limits);
        let inside = http2::for_nodes(limits)
            .add_service(self.clients.server())
            .add_service(peers.around(self.inbound.service()))
            .add_service(peers.around(self.cluster.service()));
        self.tasks
            .spawn(serve(inside, ports.grpc, self.stop_serving.clone()));
        if let Some(external) = ports.external {
            let outside =
                http2::for_clients(limits).add_service(self.clients.for_outside().server());
            self.tasks
                .spawn(serve(outside, external, self.stop_serving.clone()));
        }
        if ports.http.is_none() && ports.probes.is_none() {
            return None;
        }
        let seen = self.seen(connections, shutdown);
        if let Some(http) = ports.http {
            let serving = ops::serve(http, seen.clone(), self.stop_serving.clone());
            self.tasks.spawn(serving);
        }
        if let Some(probes) = ports.probes {
            let serving = ops::serve_probes(probes, seen.clone(), self.stop_serving.clone());
            self.tasks.spawn(serving);
        }
        Some(seen)
    }

    /// Builds the view of this node that the HTTP pages show.
    fn seen(
        &self,
        connections: Vec<(&'static str, Arc<Connections>)>,
        shutdown: &CancellationToken,
    ) -> Arc<ops::OpsContext> {
        Arc::new(ops::OpsContext {
            store: self.store.clone(),
            cluster: self.cluster.clone(),
            peers: self.peers.clone(),
            net: self.env.net.clone(),
            clock: self.env.clock.clone(),
            log_lines_lost: self.env.log_lines_lost,
            metrics: self.metrics.clone(),
            limits: self.config.limits.clone(),
            rack: self.config.rack.clone(),
            connections,
            stopping: shutdown.clone(),
            joined: Default::default(),
        })
    }

    /// Joins or founds the cluster; returns `false` if the node was asked to stop before.
    async fn join(&self, shutdown: &CancellationToken) -> Result<bool, RunError> {
        tokio::select! {
            joined = self.cluster.start() => match joined {
                Ok(()) => Ok(true),
                Err(error) if error.damage().is_some() || !has_failed(&self.store) => {
                    Err(error.into())
                }
                Err(_) => Err(self.disk_failed().await),
            },
            // A node that cannot store its identity would ask the cluster for one again and again.
            error = self.disk_failed() => Err(error),
            () = shutdown.cancelled() => Ok(false),
        }
    }

    /// Runs the node's replicas and coordinators, and serves clients from them.
    async fn work(
        &self,
        seen: Option<Arc<ops::OpsContext>>,
        shutdown: &CancellationToken,
        ready: oneshot::Sender<Ready>,
    ) -> Result<(), RunError> {
        let Node {
            config,
            store,
            peers,
            inbound,
            cluster,
            metrics,
            ..
        } = self;
        let partitions = ReplicaManager::start(config, store, peers, inbound, cluster, metrics);
        let stop_coordinating = CancellationToken::new();
        let _coordinating = stop_coordinating.clone().drop_guard();
        let coordinator = Coordinator::start(
            cluster,
            &partitions,
            peers,
            &config.limits,
            metrics,
            stop_coordinating,
        );
        let _watching = seen.map(|seen| watch_lag(&seen, &partitions, &coordinator));
        let allowing = allow_batches(self.guard.clone(), cluster.view());
        let _allowing = AbortOnDropHandle::new(tokio::spawn(allowing));
        self.begin_serving(&partitions, coordinator);
        let _scrubbing = self.scrub(&partitions);
        let registered = self.announce(ready);
        let registering = async {
            cluster.registered().await;
            registered.send_replace(true);
            std::future::pending().await
        };
        let outcome = tokio::select! {
            outcome = self.until_over(&partitions, shutdown) => outcome,
            outcome = registering => outcome,
        };
        drop(registered);
        partitions.shutdown().await;
        outcome
    }

    /// Serves clients from now on.
    fn begin_serving(&self, partitions: &ReplicaManager, coordinator: Coordinator) {
        self.availability.begin(Serving {
            cluster: self.cluster.clone(),
            partitions: partitions.clone(),
            coordinator,
            peers: self.peers.clone(),
            limits: self.config.limits.clone(),
            producer_ids: Default::default(),
            router: Default::default(),
        });
    }

    /// Looks for damage in everything stored, until the handle is dropped.
    fn scrub(&self, partitions: &ReplicaManager) -> AbortOnDropHandle<()> {
        let (limits, store) = (self.config.limits.clone(), self.store.clone());
        let (cluster, partitions) = (self.cluster.clone(), partitions.clone());
        let metrics = self.metrics.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            scrub::run(&limits, &store, &cluster, &partitions, &metrics).await
        }))
    }

    /// Says that the node serves. The returned sender says later that the cluster accepted this start.
    fn announce(&self, ready: oneshot::Sender<Ready>) -> watch::Sender<bool> {
        let (known, registered) = watch::channel(false);
        // The receiver may be gone.
        let _ = ready.send(Ready {
            node_id: self.cluster.node_id().0,
            address: self.config.advertise.clone(),
            http: self.config.http.clone(),
            cluster_id: self.cluster.view().borrow().cluster_id.clone(),
            registered,
        });
        known
    }

    /// Returns once the node should stop or cannot go on. Before that it transfers its leaderships, if it
    /// can.
    async fn until_over(
        &self,
        partitions: &ReplicaManager,
        shutdown: &CancellationToken,
    ) -> Result<(), RunError> {
        tokio::select! {
            () = shutdown.cancelled(), if self.config.stops_with_all => {
                partitions.stand_down();
                Ok(())
            }
            () = shutdown.cancelled(), if !self.config.stops_with_all => {
                partitions.hand_over_all(HAND_OVER_WITHIN).await;
                self.cluster.hand_over(HAND_OVER_WITHIN).await;
                Ok(())
            }
            error = self.disk_failed() => Err(error),
            () = self.cluster.ended() => Err(RunError::MetadataEnded),
            why = self.cluster.superseded() => Err(StartError::StartedTwice(why).into()),
            what = damaged(&self.store, &self.cluster) => {
                tracing::error!(what, "database is damaged: stopping this node");
                partitions.hand_over_all(HAND_OVER_WITHIN).await;
                Err(RunError::Damaged(what))
            }
        }
    }

    async fn disk_failed(&self) -> RunError {
        let limits = &self.config.limits;
        RunError::DiskFailed(disk::watch(limits, &self.env, &self.store, &self.inbound).await)
    }

    /// Ends all services, and then the connections.
    async fn stop(self, connections: DropGuard) {
        // Peers keep their append streams open; without this, serving would not end.
        self.inbound.close();
        self.stop_serving.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(DRAIN_WITHIN, self.tasks.wait()).await;
        // An open connection keeps the disk open, and the caller may have to reopen it.
        drop(connections);
        self.cluster.shutdown().await;
        self.store.close().await;
    }
}

fn watch_lag(
    seen: &ops::OpsContext,
    partitions: &ReplicaManager,
    coordinator: &Coordinator,
) -> AbortOnDropHandle<()> {
    let lag = LagCollector::default();
    let joined = ops::Services {
        partitions: partitions.clone(),
        lag: lag.clone(),
        returning: ops::InitialCatchUp::new(&seen.cluster).into(),
    };
    // No other code sets it.
    let _ = seen.joined.set(joined);
    AbortOnDropHandle::new(tokio::spawn(lag.run(coordinator.clone())))
}

/// Admits batches up to the largest size that any topic allows.
async fn allow_batches(guard: Guard, mut view: watch::Receiver<Arc<MetadataImage>>) {
    loop {
        let largest = {
            let view = view.borrow_and_update();
            let topics = view.topics.values();
            topics.map(|topic| topic.settings.max_batch_bytes).max()
        };
        guard.allow_batches_of(largest.unwrap_or(0) as usize);
        if view.changed().await.is_err() {
            return;
        }
    }
}

fn has_failed(store: &Store) -> bool {
    matches!(*store.disk_status().borrow(), DiskStatus::Failed(_))
}

/// Returns once damage is found that belongs to no single partition replica.
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

async fn serve(services: Router, incoming: Incoming, stop: CancellationToken) {
    let served =
        services.serve_with_incoming_shutdown(incoming.into_stream(), stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "gRPC listener stopped");
    }
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
        checkpoint_factor: config.limits.checkpoint_factor,
    }
}
