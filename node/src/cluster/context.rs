//! State shared by the tasks and services of this room.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ropewalk_machines::meta::machine::{MetaMachine, address_of};
use ropewalk_machines::meta::view::MetadataImage;
use ropewalk_proto::command::{EXTERNAL_SINCE_VERSION, IDENTITY_SINCE_VERSION, UNDERSTOOD_VERSION};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId};
use ropewalk_proto::v1::cluster_client::ClusterClient;
use ropewalk_proto::v1::{HelloAnswer, NodeIdentity, NodeStart, RegisterNode};
use ropewalk_raft_store::{Store, StoreError};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use super::clock::ClusterClock;
use super::discovery::{LocalNode, normalized};
use super::identity;
use super::leaders::LeaderTable;
use super::whereabouts::Whereabouts;
use crate::config::Config;
use crate::env::Env;
use crate::peer::{Peers, ReplicaRouter};
use crate::raft::{self, Replica};

/// The largest message between nodes about the cluster: a report of every group that a node leads.
pub(super) const MESSAGE_BYTES: usize = 16 << 20;

/// A reason for which a node cannot take part in a cluster.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The node's own store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The identity on the disk cannot be decoded.
    #[error("data directory has a damaged node identity: {0}")]
    Identity(String),
    /// The database and the data directory belong to different clusters.
    #[error(
        "database is of cluster {is}, and its data directory of cluster {remembered}; nothing was \
         changed; use the database that belongs to the directory"
    )]
    OtherCluster {
        /// The cluster of the database.
        is: String,
        /// The cluster of the data directory.
        remembered: String,
    },
    /// The metadata replica is damaged.
    #[error("metadata replica of this node is damaged: {0}")]
    Damaged(String),
    /// The metadata replica did not start.
    #[error("metadata replica did not start: {0}")]
    Raft(String),
    /// Another process runs on a copy of the data directory.
    #[error("{0}")]
    StartedTwice(String),
    /// The node is stopping.
    #[error("node is stopping")]
    Stopping,
}

impl StartError {
    /// The damage, if damage is the reason.
    pub fn damage(&self) -> Option<&str> {
        match self {
            StartError::Store(error) => error.damage(),
            StartError::Identity(what) | StartError::Damaged(what) => Some(what),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct ClusterContext {
    pub config: Config,
    pub env: Env,
    pub store: Store,
    pub peers: Peers,
    pub inbound: ReplicaRouter,
    /// This node's identity. Changes once, when the node gets its place in a cluster.
    pub identity: watch::Sender<NodeIdentity>,
    /// This start of the node. The node counts it after it has looked for other processes of its identity.
    pub start: watch::Sender<NodeStart>,
    /// The reason why this process must end, once another process runs under its identity.
    pub superseded: watch::Sender<Option<String>>,
    /// Cancelled once the metadata group has accepted this start of the node.
    pub registered: CancellationToken,
    placing: Mutex<()>,
    pub view: watch::Sender<Arc<MetadataImage>>,
    pub leaders: LeaderTable,
    /// True once the leader of the metadata group has answered that this node was removed from the cluster.
    pub removed: AtomicBool,
    pub whereabouts: Whereabouts,
    pub clock: Arc<ClusterClock>,
    /// The replica of the metadata group, once it runs.
    pub meta: OnceLock<MetadataReplica>,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
}

impl From<raft::StartError> for StartError {
    fn from(error: raft::StartError) -> StartError {
        match error {
            raft::StartError::Store(error) => StartError::Store(error),
            raft::StartError::Damaged(what) => StartError::Damaged(what),
            raft::StartError::Raft(error) => StartError::Raft(error.to_string()),
        }
    }
}

/// This node's replica of the metadata group.
pub(super) type MetadataReplica = Replica<MetaMachine>;

impl ClusterContext {
    pub fn new(
        config: Config,
        env: Env,
        store: Store,
        peers: Peers,
        inbound: ReplicaRouter,
        identity: NodeIdentity,
    ) -> ClusterContext {
        let leaders = LeaderTable::new(config.limits.node_dead_after_ms);
        leaders.set_own(identity::node_id(&identity));
        let start = identity::draw_start(&env, &config.advertise);
        ClusterContext {
            config,
            clock: Arc::new(ClusterClock::new(env.clock.clone())),
            env,
            store,
            peers,
            inbound,
            start: watch::Sender::new(start),
            superseded: watch::Sender::default(),
            registered: CancellationToken::new(),
            identity: watch::Sender::new(identity),
            placing: Mutex::new(()),
            view: watch::Sender::default(),
            leaders,
            removed: AtomicBool::new(false),
            whereabouts: Whereabouts::default(),
            meta: OnceLock::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// This node's current identity.
    pub fn identity(&self) -> NodeIdentity {
        self.identity.borrow().clone()
    }

    pub fn node_id(&self) -> NodeId {
        identity::node_id(&self.identity.borrow())
    }

    /// Persists a place in a cluster. The first place stays: later calls succeed only for the same place.
    pub async fn take_place(&self, place: NodeIdentity) -> Result<(), WireError> {
        let _alone = self.placing.lock().await;
        let now = self.identity();
        if identity::placed(&now) {
            let same = (&now.cluster_id, now.node_id) == (&place.cluster_id, place.node_id);
            return match same {
                true => Ok(()),
                false => Err(WireError::new(
                    ErrorCode::InvalidRequest,
                    format!(
                        "node is already node {} of cluster {}",
                        now.node_id, now.cluster_id
                    ),
                )),
            };
        }
        let bytes = prost::Message::encode_to_vec(&place).into();
        let kept = self.store.put_local(identity::STORED_AS, bytes).await;
        kept.map_err(|error| WireError::new(ErrorCode::DiskFailed, error.to_string()))?;
        tracing::info!(
            cluster = place.cluster_id,
            node = place.node_id,
            "joined cluster"
        );
        self.leaders.set_own(identity::node_id(&place));
        self.identity.send_replace(place);
        Ok(())
    }

    /// Records a refusal of this node's identity by the node `from`, or by the metadata group itself. If the
    /// leader of the metadata group is known and alive, only its refusal counts. Otherwise that of any node
    /// does.
    pub async fn heed(&self, from: Option<NodeId>, refusal: &WireError) {
        let leader = self.meta().ok().and_then(MetadataReplica::leader);
        let leader = leader.filter(|leader| self.leaders.alive(leader.node_id));
        let other = |from: NodeId| leader.as_ref().is_some_and(|leader| leader.node_id != from);
        if from.is_some_and(other) {
            return;
        }
        match refusal.code {
            ErrorCode::NodeRemoved if !self.removed.swap(true, Ordering::Relaxed) => {
                tracing::error!(error = %refusal, "node was removed from the cluster");
            }
            ErrorCode::StartedTwice => self.supersede(refusal).await,
            _ => {}
        }
    }

    /// Records that the leader of the metadata group counts this node as a member of its cluster.
    pub fn welcomed(&self) {
        if self.removed.swap(false, Ordering::Relaxed) {
            tracing::warn!("node is in the cluster: an earlier removal notice was wrong");
        }
    }

    /// This node's introduction, as its answer to any caller.
    pub fn introduction(&self) -> HelloAnswer {
        let identity = self.identity();
        HelloAnswer {
            incarnation: identity.incarnation,
            cluster_id: identity.cluster_id,
            seeds: self.config.seeds.clone(),
            address: self.config.advertise.clone(),
            member_of: self.config.member_of.clone().unwrap_or_default(),
            start: Some(*self.start.borrow()),
            known_address: String::new(),
            registration: Some(RegisterNode {
                external: Some(self.wanted_external().to_owned()),
                ..self.registration()
            }),
        }
    }

    /// This node's knowledge of itself before it knows any cluster.
    pub fn own(&self) -> LocalNode {
        LocalNode {
            address: self.config.advertise.clone(),
            incarnation: self.identity.borrow().incarnation.to_vec(),
            seeds: normalized(&self.config.seeds),
            member_of: self.config.member_of.clone(),
        }
    }

    /// This node's registration, as it sends it to the metadata group.
    pub fn registration(&self) -> RegisterNode {
        RegisterNode {
            incarnation: self.identity.borrow().incarnation.clone(),
            address: self.config.advertise.clone(),
            http: self.config.http.clone().unwrap_or_default(),
            rack: self.config.rack.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command_version: UNDERSTOOD_VERSION,
            external: self.untold_external(&self.view.borrow()),
            in_place_of: None, // set by the leader of the metadata group
            start: Some(*self.start.borrow()),
        }
    }

    /// True if the metadata has another address of this node, or an outdated field that every node
    /// understands.
    pub fn untold(&self, view: &MetadataImage) -> bool {
        let Ok(meta) = self.meta() else {
            return false;
        };
        let machine = meta.view.machine();
        let known = machine.node(self.node_id());
        let elsewhere = known.is_some_and(|own| address_of(own) != self.config.advertise);
        let known_start = known.map(|own| own.start);
        elsewhere
            || self.untold_external(view).is_some()
            || (view.understood >= IDENTITY_SINCE_VERSION
                && known_start != Some(Some(*self.start.borrow())))
    }

    /// This node's external address, if the metadata has another one or none, and every node understands it.
    fn untold_external(&self, view: &MetadataImage) -> Option<String> {
        let wanted = self.wanted_external();
        let known = view.nodes.get(&self.node_id())?;
        let news = known.external != wanted && view.understood >= EXTERNAL_SINCE_VERSION;
        news.then(|| wanted.to_owned())
    }

    /// The address for external clients; empty if there is none.
    fn wanted_external(&self) -> &str {
        let external = self.config.external.as_ref();
        external.map_or("", |external| &external.advertise)
    }

    pub fn client(&self, address: &str) -> ClusterClient<Channel> {
        ClusterClient::new(self.peers.channel(address))
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    /// Maximum time of one call to another node.
    pub fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.config.limits.peer_rpc_timeout_ms.max(1))
    }

    /// Runs a task until it ends or the node stops.
    pub fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// The replica of the metadata group on this node.
    pub fn meta(&self) -> Result<&MetadataReplica, WireError> {
        self.meta.get().ok_or_else(|| {
            WireError::new(
                ErrorCode::NotServing,
                "node is not in a cluster yet; try again shortly, or ask another node",
            )
        })
    }
}

impl MetadataReplica {
    /// Opens the replica of the metadata group that the identity names, and lets peers call it.
    pub(super) async fn open(
        shared: &ClusterContext,
        identity: &NodeIdentity,
    ) -> Result<MetadataReplica, StartError> {
        let (group, replica) = (GroupId::META, ReplicaId(identity.meta_replica_id));
        let opened = shared
            .store
            .open_replica(group, replica, MetaMachine::new());
        let opened = opened.await?;
        let networks = shared.peers.network(group, replica);
        let (inbound, limits) = (&shared.inbound, &shared.config.limits);
        let started = Replica::start(opened, networks, inbound, limits, "metadata").await;
        started.map_err(StartError::from)
    }

    /// The nodes whose replica of the metadata group votes, as far as this replica knows.
    pub(super) fn voters(&self) -> BTreeSet<NodeId> {
        self.with_metrics(|metrics| {
            let membership = metrics.membership_config.membership();
            let voters = membership.voter_ids();
            let brokers = voters.filter_map(|voter| membership.get_node(&voter));
            brokers.map(|broker| broker.node_id).collect()
        })
    }
}
