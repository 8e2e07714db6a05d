//! One running replica: its Raft, its view of what is applied, and what it may do right now.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use openraft::{RaftMetrics, ReadPolicy};
use parking_lot::{Mutex, RwLock};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId};
use ropewalk_proto::v1::TopicSettings;
use ropewalk_raft_store::{Raft, ReplicaView, Scrub, StoreError, TypeConfig};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::PartitionMachine;
use super::compaction::Progress;
use super::followers::Pace;
use super::gate::Gate;
use super::host::Host;
use super::quarantine::lost_majority;
use super::steward;
use crate::metrics::Topic;
use crate::peer::{Claims, Newcomers};
use crate::raft_config::raft_config;

/// How long a stopping replica waits for its Raft.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Which replica of which partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionId {
    /// The topic's name.
    pub topic: String,
    /// The partition's number within it.
    pub partition: u32,
    /// The Raft group of the partition.
    pub group: GroupId,
    /// This node's replica of it.
    pub replica: ReplicaId,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Why a replica could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// Its log or state can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its log was found damaged as its Raft began.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Its Raft refused to begin.
    #[error(transparent)]
    Raft(#[from] Fatal<TypeConfig>),
}

impl StartError {
    /// What is damaged, if that is why.
    pub(super) fn damage(&self) -> Option<&str> {
        match self {
            StartError::Store(error) => error.damage(),
            StartError::Damaged(why) => Some(why),
            StartError::Raft(_) => None,
        }
    }
}

/// One replica of one partition, running on this node.
#[derive(Debug)]
pub struct Partition {
    pub(super) id: PartitionId,
    pub(super) host: Arc<Host>,
    pub(super) raft: Raft<PartitionMachine>,
    pub(super) view: ReplicaView<PartitionMachine>,
    pub(super) settings: RwLock<TopicSettings>,
    /// Check that refuses batches before they are proposed.
    pub(super) gate: Arc<Gate>,
    /// Time of the last round in which the others confirmed this replica as the leader.
    pub(super) confirmed: tokio::sync::Mutex<Option<Instant>>,
    /// One more than the log index of the segment boundary behind which a roll was asked for.
    pub(super) roll_asked: AtomicU64,
    /// The index that the log was purged up to, as far as its checkpoints allow.
    pub(super) purge_done: AtomicU64,
    /// How far this replica has compacted its log.
    pub(super) compacted: Mutex<Progress>,
    /// How far the others have, as they told this one while it led.
    pub(super) claims: Claims,
    /// Those that do not vote yet, which this one brings up while it leads.
    pub(super) newcomers: Newcomers,
    /// How fast the log grows, as its followers are measured by.
    pub(super) pace: Mutex<Pace>,
    /// The epoch this replica was last told to lead in: what waiting readers watch.
    pub(super) leads: watch::Sender<Option<u64>>,
    /// Its Raft has ended, also if it could not say so.
    pub(super) ended: AtomicBool,
    /// What goes through its topic here.
    pub(super) traffic: Arc<Topic>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Partition {
    /// Opens the replica's log and state, and begins to take part in its group.
    pub(super) async fn start(
        host: Arc<Host>,
        id: PartitionId,
        settings: TopicSettings,
    ) -> Result<Arc<Partition>, StartError> {
        let replica = host
            .store
            .open_replica(id.group, id.replica, PartitionMachine::default())
            .await?;
        let config = raft_config(&host.limits, &id.to_string());
        let network = host.peers.network(id.group, id.replica);
        let network = network.traced(host.store.traces().clone());
        let (claims, newcomers) = (network.claims(), network.newcomers());
        let compacted = Progress::load(&replica.view).await;
        let compacted = compacted.map_err(StoreError::from)?;
        let raft = Raft::new(id.replica, config, network, replica.log, replica.state).await;
        let raft = raft.map_err(|error| match replica.view.damage().borrow().clone() {
            Some(why) => StartError::Damaged(why),
            None => StartError::Raft(error),
        })?;
        host.inbound.register(id.group, id.replica, raft.clone());
        host.inbound.compacted(id.replica, compacted.to_offset);
        let traffic = host.metrics.topics.of(&id.topic);
        let partition = Arc::new(Partition {
            traffic,
            id,
            host,
            raft,
            view: replica.view,
            settings: RwLock::new(settings),
            gate: Arc::default(),
            confirmed: Default::default(),
            roll_asked: AtomicU64::new(0),
            purge_done: AtomicU64::new(0),
            compacted: Mutex::new(compacted),
            claims,
            newcomers,
            pace: Mutex::default(),
            leads: watch::Sender::new(None),
            ended: AtomicBool::new(false),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        partition
            .tasks
            .spawn(steward::run(partition.clone(), partition.stop.clone()));
        partition.tasks.close();
        tracing::debug!(partition = %partition.id, replica = %partition.id.replica, "replica started");
        Ok(partition)
    }

    /// Leaves the group's traffic and stops. What is on the disk stays.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.host.inbound.deregister(self.id.replica);
        let stopped = async {
            self.tasks.wait().await;
            self.raft.shutdown().await
        };
        if tokio::time::timeout(STOP_WITHIN, stopped).await.is_err() {
            tracing::warn!(partition = %self.id, "the replica did not stop within {STOP_WITHIN:?}");
        }
    }

    /// Which replica of which partition this is.
    pub fn id(&self) -> &PartitionId {
        &self.id
    }

    /// What goes through its topic here.
    pub fn traffic(&self) -> &Topic {
        &self.traffic
    }

    /// Bytes of its log here.
    pub fn log_bytes(&self) -> u64 {
        self.view.log_bytes()
    }

    /// Whether its Raft runs: it ends for good when its disk or its state fails it.
    pub fn is_running(&self) -> bool {
        let ended = self.ended.load(Ordering::Relaxed);
        !ended && self.with_metrics(|metrics| metrics.running_state.is_ok())
    }

    /// Whether this replica leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    /// A pass over all that is stored of it, to find what is damaged.
    pub(crate) fn scrub(&self) -> Scrub {
        self.view.scrub()
    }

    /// The epoch this replica leads in, or who leads instead.
    pub(super) fn leading_epoch(&self) -> Result<u64, WireError> {
        self.check_sound()?;
        self.with_metrics(|metrics| {
            if metrics.state.is_leader() {
                Ok(metrics.current_term)
            } else {
                Err(self.not_leader(metrics))
            }
        })
    }

    /// The epoch of the last entry applied here. Once that is the leader's own, all that leaders before it
    /// wrote is applied.
    pub(super) fn applied_epoch(&self) -> Option<u64> {
        self.with_metrics(|metrics| {
            let applied = metrics.last_applied.as_ref();
            applied.map(|applied| applied.committed_leader_id().term)
        })
    }

    /// Refuses to serve from a replica that was found damaged.
    pub(super) fn check_sound(&self) -> Result<(), WireError> {
        if self.view.is_damaged() {
            return Err(self.error(
                ErrorCode::NotServing,
                "its replica here was found damaged and has left its group; ask its other nodes",
            ));
        }
        Ok(())
    }

    pub(super) fn with_metrics<R>(&self, look: impl FnOnce(&RaftMetrics<TypeConfig>) -> R) -> R {
        look(&self.raft.metrics().borrow_watched())
    }

    fn not_leader(&self, metrics: &RaftMetrics<TypeConfig>) -> WireError {
        if let Err(fatal) = &metrics.running_state {
            return self.error(
                ErrorCode::NotServing,
                format!("its replica here has stopped: {fatal}"),
            );
        }
        let view = self.host.view.borrow().clone();
        let wish = view.partition(&self.id.topic, self.id.partition);
        // Without a successor, Raft goes on to name a leader that is damaged or gone.
        let lost = |leader: ReplicaId| wish.is_some_and(|wish| wish.is_lost(leader, &view));
        let leader = metrics
            .current_leader
            .filter(|leader| *leader != self.id.replica && !lost(*leader));
        let node = leader.and_then(|leader| {
            metrics
                .membership_config
                .membership()
                .get_node(&leader)
                .cloned()
        });
        match node {
            Some(node) => self.error(ErrorCode::NotLeader, format!("{node} leads it; ask there")),
            None => match wish.and_then(|wish| wish.lost_majority(&view)) {
                Some(nodes) => lost_majority(&self.id, &nodes),
                None => self.error(
                    ErrorCode::NoLeader,
                    "a leader is being elected, or too few of its nodes are up; try again shortly",
                ),
            },
        }
    }

    /// The error of a request to a replica that knows no better than to say who leads.
    pub(super) fn not_leader_now(&self) -> WireError {
        self.with_metrics(|metrics| self.not_leader(metrics))
    }

    pub(super) fn error(&self, code: ErrorCode, what: impl fmt::Display) -> WireError {
        WireError::new(code, format!("partition {}: {what}", self.id))
    }

    /// Returns when everything any leader has acknowledged so far is applied here.
    pub(super) async fn catch_up(&self) -> Result<(), WireError> {
        let within = Duration::from_millis(self.host.limits.peer_rpc_timeout_ms);
        let read = async {
            let linearizer = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
            let linearizer = linearizer.map_err(|_| self.not_leader_now())?;
            linearizer
                .await_ready(&self.raft)
                .await
                .map_err(|_| self.not_leader_now())?;
            Ok(())
        };
        let late = |_| {
            self.error(
                ErrorCode::NoLeader,
                "too few of its nodes answered to confirm who leads; try again shortly",
            )
        };
        tokio::time::timeout(within, read).await.map_err(late)?
    }

    /// Asks the leader here to hand over to the replica on `to`.
    ///
    /// # Errors
    /// `NotLeader` if another node leads; `InvalidRequest` if `to` holds no voting replica;
    /// `Unsafe` if its replica does not keep up;
    /// `Timeout` if it has not taken over in time.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), WireError> {
        self.leading_epoch()?;
        let target = self.with_metrics(|metrics| {
            let membership = metrics.membership_config.membership();
            let voters: Vec<ReplicaId> = membership.voter_ids().collect();
            let mut nodes = membership.nodes();
            nodes
                .find(|(id, node)| node.node_id == to && voters.contains(id))
                .map(|(id, _)| *id)
        });
        let target = target.ok_or_else(|| {
            self.error(
                ErrorCode::InvalidRequest,
                format!("node {to} holds no voting replica of it"),
            )
        })?;
        if !self.group().could_lead(target) {
            return Err(self.error(
                ErrorCode::Unsafe,
                format!(
                    "node {to} has not caught up, or does not answer; try again when it is in sync"
                ),
            ));
        }
        self.hand_over(target).await
    }

    /// Hands leadership to `target` and waits until it is no longer here.
    pub(super) async fn hand_over(&self, target: ReplicaId) -> Result<(), WireError> {
        if target == self.id.replica {
            return Ok(());
        }
        // If the target does not take over, the others elect after two timeouts at most.
        let within = Duration::from_millis(self.host.limits.election_timeout_ms.saturating_mul(4));
        self.raft
            .trigger()
            .transfer_leader(target)
            .await
            .map_err(|_| self.not_leader_now())?;
        let wait = self.raft.wait(Some(within));
        let left = wait
            .metrics(
                |metrics| !metrics.state.is_leader(),
                "leadership handed over",
            )
            .await;
        left.map(|_| ()).map_err(|_| {
            self.error(
                ErrorCode::Timeout,
                format!("replica {target} has not taken over yet; look again shortly"),
            )
        })
    }
}
