//! The handle by which the rest of the node uses the cluster, and the tasks that keep the handle current.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message;
use ropewalk_machines::meta::view::MetadataImage;
use ropewalk_proto::error::{ErrorCode, Retry, WireError};
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1::cluster_server::ClusterServer;
use ropewalk_proto::v1::{NodeIdentity, NodeState, meta_command, meta_reply};
use ropewalk_raft_store::{Scrub, Store};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::bootstrap::{self, Pause};
use super::context::{ClusterContext, MESSAGE_BYTES, MetadataReplica, StartError};
use super::leaders::LeaderTable;
use super::service::ClusterService;
use super::{controller, heartbeat, identity, propose, starts, whereabouts};
use crate::config::Config;
use crate::env::{Clock, Env};
use crate::peer::{Peers, ReplicaRouter};
use crate::raft::STOP_WITHIN;

/// Interval between two attempts to purge the metadata group's log.
const PURGE_EVERY: Duration = Duration::from_secs(10);
/// Pause before the next registration attempt after a refusal that no retry can change.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);

/// The cluster from this node's point of view. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cluster {
    shared: Arc<ClusterContext>,
}

impl Cluster {
    /// Reads the node's identity from the store, or draws a new one. Starts no task. [`Cluster::start`] can
    /// return only while the [`Cluster::service`] is served.
    pub async fn new(
        config: &Config,
        env: &Env,
        store: &Store,
        peers: &Peers,
        inbound: &ReplicaRouter,
    ) -> Result<Cluster, StartError> {
        starts::check_refused(store).await?;
        let identity = match store.get_local(identity::STORED_AS).await? {
            Some(kept) => NodeIdentity::decode(kept)
                .map_err(|error| StartError::Identity(error.to_string()))?,
            None => {
                let fresh = identity::fresh(env, &config.advertise);
                let bytes = fresh.encode_to_vec().into();
                store.put_local(identity::STORED_AS, bytes).await?;
                fresh
            }
        };
        if let Some(remembered) = &config.member_of
            && identity::placed(&identity)
            && identity.cluster_id != *remembered
        {
            return Err(StartError::OtherCluster {
                is: identity.cluster_id,
                remembered: remembered.clone(),
            });
        }
        let shared = ClusterContext::new(
            config.clone(),
            env.clone(),
            store.clone(),
            peers.clone(),
            inbound.clone(),
            identity,
        );
        Ok(Cluster {
            shared: Arc::new(shared),
        })
    }

    /// Returns the node to the cluster it was in, joins the cluster of its seeds, or founds one with them.
    /// Completes once the node has its id and its view contains it. Waits without a bound, and logs the
    /// reason for the wait.
    pub async fn start(&self) -> Result<(), StartError> {
        let shared = &self.shared;
        starts::begin(shared).await?;
        let identity = bootstrap::find_place(shared).await?;
        if shared.meta.get().is_none() {
            let meta = MetadataReplica::open(shared, &identity).await?;
            if shared.meta.set(meta).is_ok() {
                self.spawn_tasks(&identity)?;
            }
        }
        let own = self.node_id();
        let mut views = self.view();
        let shown =
            views.wait_for(|view| !view.cluster_id.is_empty() && view.nodes.contains_key(&own));
        tokio::select! {
            shown = shown => shown.map(|_| ()).map_err(|_| StartError::Stopping),
            what = self.damaged() => Err(StartError::Damaged(what)),
            why = self.superseded() => Err(StartError::StartedTwice(why)),
            () = shared.stop.cancelled() => Err(StartError::Stopping),
        }
    }

    /// Completes once the metadata replica is found damaged, and returns the damage. Peers no longer reach
    /// the replica from then on, and the node cannot continue with it.
    pub async fn damaged(&self) -> String {
        let Some(meta) = self.shared.meta.get() else {
            return std::future::pending().await;
        };
        let what = meta.damaged().await;
        meta.withdraw();
        what
    }

    /// Completes once the cluster has answered that another process runs under this node's identity, and
    /// returns that answer. This process must end.
    pub async fn superseded(&self) -> String {
        let mut superseded = self.shared.superseded.subscribe();
        let why = superseded.wait_for(Option::is_some).await;
        why.ok().and_then(|why| why.clone()).unwrap_or_default()
    }

    /// Completes once the metadata group has accepted this start of the node.
    pub async fn registered(&self) {
        self.shared.registered.cancelled().await;
    }

    /// A pass over everything stored for the metadata replica that looks for damage.
    pub(crate) fn scrub(&self) -> Option<Scrub> {
        Some(self.shared.meta.get()?.view.scrub())
    }

    /// Completes if the Raft core of the metadata replica ends without an error, as after a panic. A failed
    /// disk and damage come with an error and are reported elsewhere.
    pub async fn ended(&self) {
        if let Some(meta) = self.shared.meta.get()
            && meta.ended().await
        {
            return;
        }
        std::future::pending().await
    }

    fn spawn_tasks(&self, identity: &NodeIdentity) -> Result<(), StartError> {
        let shared = &self.shared;
        let meta = shared.meta.get().ok_or(StartError::Stopping)?;
        refresh_view(shared, meta);
        shared.spawn(keep_view(shared.clone(), meta.clone()));
        shared.spawn(bootstrap::begin(
            shared.clone(),
            identity.clone(),
            meta.clone(),
        ));
        shared.spawn(bootstrap::spread_plan(shared.clone(), identity.clone()));
        shared.spawn(register(shared.clone()));
        shared.spawn(whereabouts::look(shared.clone()));
        shared.spawn(heartbeat::report_to_all(shared.clone()));
        shared.spawn(controller::control(shared.clone(), meta.clone()));
        shared.spawn(purge(meta.clone(), shared.call_timeout()));
        Ok(())
    }

    /// The gRPC service for other nodes. The caller must serve it before it starts the cluster.
    pub fn service(&self) -> ClusterServer<ClusterService> {
        let service = ClusterService {
            shared: self.shared.clone(),
        };
        ClusterServer::new(service)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    /// This node's id; 0 until it is in a cluster.
    pub fn node_id(&self) -> NodeId {
        self.shared.node_id()
    }

    /// The lowest producer id that is not allocated, as far as this node has applied.
    pub fn next_producer_id(&self) -> u64 {
        let meta = self.shared.meta.get();
        meta.map_or(0, |meta| meta.view.machine().next_producer_id())
    }

    /// The clock that leaders use: the time that most nodes' clocks agree on.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.shared.clock.clone()
    }

    /// The cluster's metadata as of the newest entry applied here.
    pub fn view(&self) -> watch::Receiver<Arc<MetadataImage>> {
        self.shared.view.subscribe()
    }

    /// The cluster's metadata, and the log index that it covers. Two nodes that have applied the same entries
    /// return the same index, even where some of the entries changed nothing.
    pub fn view_as_of(&self) -> (Arc<MetadataImage>, u64) {
        let applied = self.shared.meta.get();
        let applied = applied.map(|meta| refresh_view(&self.shared, meta));
        let view = self.shared.view.borrow().clone();
        let applied = applied.unwrap_or(view.applied);
        (view, applied)
    }

    /// The leader of each group.
    pub fn leaders(&self) -> &LeaderTable {
        &self.shared.leaders
    }

    /// True if a node was heard from recently.
    pub fn alive(&self, node: NodeId) -> bool {
        self.shared.leaders.alive(node)
    }

    /// True if this node was removed from its cluster and knows it only from a refusal. Its metadata ends
    /// before the removal, and no other node sends it the rest.
    pub fn is_forsaken(&self) -> bool {
        let known = |view: &MetadataImage| view.nodes.get(&self.node_id()).map(|own| own.state);
        self.shared.removed.load(Ordering::Relaxed)
            && known(&self.shared.view.borrow()) != Some(NodeState::Removed)
    }

    /// The node that leads the metadata group, if its leader is known and was heard from recently.
    pub fn controller(&self) -> Option<NodeId> {
        let leader = self.shared.meta.get()?.leader()?.node_id;
        self.alive(leader).then_some(leader)
    }

    /// Index up to which this node's metadata replica has applied its log, and the last index of that log.
    /// `None` before the replica runs.
    pub fn metadata_progress(&self) -> Option<(u64, u64)> {
        let meta = self.shared.meta.get()?;
        Some(meta.with_metrics(|metrics| {
            let applied = metrics.last_applied.map_or(0, |last| last.index);
            (applied, metrics.last_log_index.unwrap_or(applied))
        }))
    }

    /// The nodes whose replica of the metadata group votes, as far as this node knows.
    pub fn metadata_voters(&self) -> BTreeSet<NodeId> {
        let voters = self.shared.meta.get().map(MetadataReplica::voters);
        voters.unwrap_or_default()
    }

    /// Has the metadata group apply a command, whichever node leads it. Returns the kind of the reply, or
    /// `None` if the reply has no content. A refusal by the group comes back as its error. Waits for
    /// elections, within a bound.
    pub async fn propose(
        &self,
        command: meta_command::Kind,
    ) -> Result<Option<meta_reply::Kind>, WireError> {
        if self.shared.stop.is_cancelled() {
            return Err(WireError::new(
                ErrorCode::NotServing,
                "node is stopping; ask another node",
            ));
        }
        let limits = &self.shared.config.limits;
        let election = Duration::from_millis(limits.election_timeout_ms);
        let within = self.shared.call_timeout() * 2 + election * 3;
        propose::propose(&self.shared, command, within).await
    }

    /// Transfers the leadership of the metadata group to another node, if this node leads it. If that takes
    /// longer than `within`, an election follows.
    pub async fn hand_over(&self, within: Duration) {
        let Some(meta) = self.shared.meta.get() else {
            return;
        };
        if !meta.leads() {
            return;
        }
        let handed = controller::hand_over(&self.shared, meta);
        if timeout(within, handed).await.is_err() {
            tracing::info!("metadata leadership was not transferred in time");
        }
    }

    /// Stops all tasks of this room and waits for them. Data on the disk stays.
    pub async fn shutdown(&self) {
        let shared = &self.shared;
        shared.stop.cancel();
        shared.tasks.close();
        let stopped = async {
            shared.tasks.wait().await;
            if let Some(meta) = shared.meta.get()
                && let Err(error) = meta.stop().await
            {
                tracing::warn!(error, "metadata replica shutdown failed");
            }
        };
        if timeout(STOP_WITHIN, stopped).await.is_err() {
            tracing::warn!("cluster tasks did not stop within {STOP_WITHIN:?}");
        }
    }
}

/// Updates the view as the metadata replica applies entries.
async fn keep_view(shared: Arc<ClusterContext>, meta: MetadataReplica) {
    let mut applied = meta.view.applied();
    loop {
        applied.mark_unchanged();
        refresh_view(&shared, &meta);
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Brings the view up to the last entry that the metadata replica has applied, and returns its log index.
pub(super) fn refresh_view(shared: &ClusterContext, meta: &MetadataReplica) -> u64 {
    let (view, applied): (Arc<MetadataImage>, u64) = {
        let machine = meta.view.machine();
        let applied = machine.applied();
        if machine.changed() <= shared.view.borrow().applied {
            return applied;
        }
        (Arc::from(&*machine), applied)
    };
    let newer = shared.view.send_if_modified(|now| {
        let newer = view.applied > now.applied;
        if newer {
            *now = view.clone();
        }
        newer
    });
    if newer {
        let placed = view
            .nodes
            .iter()
            .map(|(id, node)| (*id, node.address.clone()));
        let reachable = placed.filter(|(_, address)| !address.is_empty());
        shared.peers.found_at(reachable.collect());
        let groups: BTreeSet<_> = view.partitions().map(|p| p.group).collect();
        let stays = |node: NodeId| {
            let node = view.nodes.get(&node);
            node.is_some_and(|node| node.state != NodeState::Removed)
        };
        shared
            .leaders
            .retain(|group| groups.contains(&group), stays);
    }
    applied
}

/// Registers this start of the node with the metadata group: its address and its command version. The
/// external address follows once all nodes understand it.
async fn register(shared: Arc<ClusterContext>) {
    let mut view = shared.view.subscribe();
    loop {
        registered(&shared).await;
        loop {
            // Waits for a change, since the view may not show this registration yet.
            if view.changed().await.is_err() {
                return;
            }
            if shared.untold(&view.borrow_and_update()) {
                break;
            }
        }
    }
}

async fn registered(shared: &Arc<ClusterContext>) {
    let mut pause = Pause::new();
    loop {
        match bootstrap::make_known(shared).await {
            Ok(()) => return shared.registered.cancel(),
            Err(error) if error.code.retry() == Retry::Never => {
                shared.heed(None, &error).await;
                tracing::error!(%error, "node was refused by its cluster");
                sleep(REFUSED_AGAIN).await;
            }
            Err(error) if error.code == ErrorCode::AddressInUse => {
                tracing::warn!(%error, "node is not registered yet");
            }
            Err(error) => tracing::info!(%error, "node is not registered yet"),
        }
        pause.next().await;
    }
}

/// Keeps the metadata group's log short: purges the entries that a checkpoint covers.
async fn purge(meta: MetadataReplica, limit: Duration) {
    loop {
        sleep(PURGE_EVERY).await;
        match meta.purge(limit).await {
            Ok(Some(index)) => tracing::debug!(index, "metadata log purged"),
            Ok(None) => {}
            Err(error) => tracing::info!(%error, "metadata log not purged; retrying later"),
        }
    }
}
