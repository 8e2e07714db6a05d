//! The handle by which the rest of the node sees the cluster, and the tasks that keep it true.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use prost::Message;
use ropewalk_proto::error::{ErrorCode, Retry, WireError};
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1::cluster_server::ClusterServer;
use ropewalk_proto::v1::{NodeIdentity, NodeState, meta_command, meta_reply};
use ropewalk_raft_store::{Scrub, Store, purge_to_boundary};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::formation::{self, Pause};
use super::leaders::LeaderTable;
use super::service::ClusterService;
use super::shared::{MESSAGE_BYTES, Meta, Shared, StartError};
use super::view::ClusterView;
use super::{controller, identity, propose, report, starts, whereabouts};
use crate::config::Config;
use crate::env::{Clock, Env};
use crate::peer::{Inbound, Peers};

/// Between two looks at whether the metadata group's log can be purged.
const PURGE_EVERY: Duration = Duration::from_secs(10);
/// How long a node whose registration was refused for good waits before it says so again.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);
/// How long a stopping node waits for the tasks of this room.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// The cluster, as this node sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

impl Cluster {
    /// Reads from the store who this node is, or draws who it will be. Nothing runs yet; the
    /// [`Cluster::service`] must be served before [`Cluster::start`] can come to an end.
    pub async fn new(
        config: &Config,
        env: &Env,
        store: &Store,
        peers: &Peers,
        inbound: &Inbound,
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
        let shared = Shared::new(
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

    /// Comes back to the cluster this node was in, joins the one its seeds are in, or founds one
    /// with them. Returns once the node has its id and its view shows it; waits as long as that
    /// takes, saying what for.
    pub async fn start(&self) -> Result<(), StartError> {
        let shared = &self.shared;
        starts::begin(shared).await?;
        let identity = formation::find_place(shared).await?;
        if shared.meta.get().is_none() {
            let meta = Meta::open(shared, &identity).await?;
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

    /// Returns once the metadata replica was found damaged, with what was found. Peers do not reach
    /// it from then on; the node can't go on with it.
    pub async fn damaged(&self) -> String {
        let Some(meta) = self.shared.meta.get() else {
            return std::future::pending().await;
        };
        let mut damage = meta.state.damage();
        let found = damage.wait_for(Option::is_some).await;
        let found = found.ok().and_then(|found| found.clone());
        self.shared.inbound.deregister(meta.replica);
        meta.raft.runtime_config().elect(false);
        found.unwrap_or_default()
    }

    /// Returns once the cluster has said that another process is this node, with what it said. This one
    /// must end.
    pub async fn superseded(&self) -> String {
        let mut superseded = self.shared.superseded.subscribe();
        let why = superseded.wait_for(Option::is_some).await;
        why.ok().and_then(|why| why.clone()).unwrap_or_default()
    }

    /// Returns once the metadata group has taken this start of the node.
    pub async fn registered(&self) {
        self.shared.registered.cancelled().await;
    }

    /// A pass over all that is stored of the metadata replica, to find what is damaged.
    pub(crate) fn scrub(&self) -> Option<Scrub> {
        Some(self.shared.meta.get()?.state.scrub())
    }

    /// Returns if the metadata replica's Raft has ended without saying why, as a panic does. What
    /// says why, the disk's failure and damage, is told elsewhere.
    pub async fn ended(&self) {
        if let Some(meta) = self.shared.meta.get() {
            let mut role = meta.raft.server_metrics();
            while role.changed().await.is_ok() {}
            if meta.raft.metrics().borrow_watched().running_state.is_ok() {
                return;
            }
        }
        std::future::pending().await
    }

    fn spawn_tasks(&self, identity: &NodeIdentity) -> Result<(), StartError> {
        let shared = &self.shared;
        let meta = shared.meta.get().ok_or(StartError::Stopping)?;
        refresh_view(shared, meta);
        shared.spawn(keep_view(shared.clone(), meta.clone()));
        shared.spawn(formation::begin(
            shared.clone(),
            identity.clone(),
            meta.clone(),
        ));
        shared.spawn(formation::spread_plan(shared.clone(), identity.clone()));
        shared.spawn(register(shared.clone()));
        shared.spawn(whereabouts::look(shared.clone()));
        shared.spawn(report::report_to_all(shared.clone()));
        shared.spawn(controller::control(shared.clone(), meta.clone()));
        shared.spawn(purge(meta.clone(), shared.call_timeout()));
        Ok(())
    }

    /// What other nodes ask of this one; to be served before it is started.
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

    /// The first producer id that was not given out, as far as this node has heard.
    pub fn next_producer_id(&self) -> u64 {
        let meta = self.shared.meta.get();
        meta.map_or(0, |meta| meta.state.machine().next_producer_id())
    }

    /// The time of day that leaders go by: what most nodes' clocks say.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.shared.clock.clone()
    }

    /// The cluster's metadata, as of the newest entry applied here.
    pub fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.shared.view.subscribe()
    }

    /// The cluster's metadata, and the index up to which it is at least: the same on every node that
    /// has applied as much, whether or not all of it changed anything.
    pub fn view_as_of(&self) -> (Arc<ClusterView>, u64) {
        let applied = self.shared.meta.get();
        let applied = applied.map(|meta| refresh_view(&self.shared, meta));
        let view = self.shared.view.borrow().clone();
        let applied = applied.unwrap_or(view.applied);
        (view, applied)
    }

    /// Who leads which group.
    pub fn leaders(&self) -> &LeaderTable {
        &self.shared.leaders
    }

    /// Whether a node was heard from lately.
    pub fn alive(&self, node: NodeId) -> bool {
        self.shared.leaders.alive(node)
    }

    /// Whether this node was removed from its cluster and has heard it only from who refused it: what
    /// it knows of the cluster ends before that, and nobody tells it more.
    pub fn is_forsaken(&self) -> bool {
        let known = |view: &ClusterView| view.nodes.get(&self.node_id()).map(|own| own.state);
        self.shared.removed.load(Ordering::Relaxed)
            && known(&self.shared.view.borrow()) != Some(NodeState::Removed)
    }

    /// The node that leads the metadata group, if one is known and was heard from lately.
    pub fn controller(&self) -> Option<NodeId> {
        let leader = self.shared.meta.get()?.leader()?.node_id;
        self.alive(leader).then_some(leader)
    }

    /// How far this node's metadata replica has applied its log, and how long that is; `None` before it
    /// runs.
    pub fn metadata_progress(&self) -> Option<(u64, u64)> {
        let metrics = self.shared.meta.get()?.raft.metrics();
        let metrics = metrics.borrow_watched();
        let applied = metrics.last_applied.map_or(0, |last| last.index);
        Some((applied, metrics.last_log_index.unwrap_or(applied)))
    }

    /// The nodes whose replica of the metadata group votes, as far as this node knows.
    pub fn metadata_voters(&self) -> BTreeSet<NodeId> {
        let voters = self.shared.meta.get().map(Meta::voters);
        voters.unwrap_or_default()
    }

    /// Has the metadata group apply a command, wherever it is led, and returns its answer: the
    /// reply's kind, or none where there is nothing to say. What the group refuses comes back as
    /// the error it gave. Elections are waited for, within a bound.
    pub async fn propose(
        &self,
        command: meta_command::Kind,
    ) -> Result<Option<meta_reply::Kind>, WireError> {
        if self.shared.stop.is_cancelled() {
            return Err(WireError::new(
                ErrorCode::NotServing,
                "this node is stopping; ask another",
            ));
        }
        let limits = &self.shared.config.limits;
        let election = Duration::from_millis(limits.election_timeout_ms);
        let within = self.shared.call_timeout() * 2 + election * 3;
        propose::propose(&self.shared, command, within).await
    }

    /// Gives the lead of the metadata group, if it is here, to another node. What could not be
    /// handed over `within` that time is left to an election.
    pub async fn hand_over(&self, within: Duration) {
        let Some(meta) = self.shared.meta.get() else {
            return;
        };
        if !meta.leads() {
            return;
        }
        let handed = controller::hand_over(&self.shared, meta);
        if timeout(within, handed).await.is_err() {
            tracing::info!("the metadata group's lead could not be handed over in time");
        }
    }

    /// Stops all that this room runs, and waits for it. What is on the disk stays.
    pub async fn shutdown(&self) {
        let shared = &self.shared;
        shared.stop.cancel();
        shared.tasks.close();
        let stopped = async {
            shared.tasks.wait().await;
            if let Some(meta) = shared.meta.get() {
                shared.inbound.deregister(meta.replica);
                if let Err(error) = meta.raft.shutdown().await {
                    tracing::warn!(%error, "the metadata replica did not end well");
                }
            }
        };
        if timeout(STOP_WITHIN, stopped).await.is_err() {
            tracing::warn!("the cluster's tasks did not stop within {STOP_WITHIN:?}");
        }
    }
}

/// Follows the metadata replica with the view.
async fn keep_view(shared: Arc<Shared>, meta: Meta) {
    let mut applied = meta.state.applied();
    loop {
        applied.mark_unchanged();
        refresh_view(&shared, &meta);
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Brings the view up to what the metadata replica has applied, and says which log index that is.
pub(super) fn refresh_view(shared: &Shared, meta: &Meta) -> u64 {
    let (view, applied): (Arc<ClusterView>, u64) = {
        let machine = meta.state.machine();
        let applied = machine.applied;
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

/// Tells the metadata group of this start of the node: where it is now, and what it understands; and
/// its external address, once all nodes understand that.
async fn register(shared: Arc<Shared>) {
    let mut view = shared.view.subscribe();
    loop {
        registered(&shared).await;
        loop {
            // A change, since the view is behind what was just told.
            if view.changed().await.is_err() {
                return;
            }
            if shared.untold(&view.borrow_and_update()) {
                break;
            }
        }
    }
}

async fn registered(shared: &Arc<Shared>) {
    let mut pause = Pause::new();
    loop {
        match formation::make_known(shared).await {
            Ok(()) => return shared.registered.cancel(),
            Err(error) if error.code.retry() == Retry::Never => {
                shared.heed(None, &error).await;
                tracing::error!(%error, "the cluster refuses this node");
                sleep(REFUSED_AGAIN).await;
            }
            Err(error) if error.code == ErrorCode::AddressInUse => {
                tracing::warn!(%error, "this node is not registered yet");
            }
            Err(error) => tracing::info!(%error, "this node is not registered yet"),
        }
        pause.next().await;
    }
}

/// Keeps the metadata group's log short: what a checkpoint stands in for goes.
async fn purge(meta: Meta, limit: Duration) {
    loop {
        sleep(PURGE_EVERY).await;
        match purge_to_boundary(&meta.raft, &meta.state, limit).await {
            Ok(Some(index)) => tracing::debug!(index, "the metadata log was purged"),
            Ok(None) => {}
            Err(error) => tracing::info!(%error, "the metadata log is purged later"),
        }
    }
}
