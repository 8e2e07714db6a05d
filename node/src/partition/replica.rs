//! One running replica of a partition, and its current role.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::{RaftMetrics, ReadPolicy};
use parking_lot::{Mutex, RwLock};
use ropewalk_machines::log::PartitionMachine;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId};
use ropewalk_proto::v1::TopicSettings;
use ropewalk_raft_store::{Scrub, StoreError, TypeConfig};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::compaction::Progress;
use super::gate::Gate;
use super::node_context::NodeContext;
use super::quarantine::lost_majority;
use super::reconciler;
use crate::metrics::Topic;
use crate::peer::{Claims, Newcomers};
use crate::raft::{CatchUpBaseline, Replica, STOP_WITHIN, StartError, leadership};

/// Identity of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionId {
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition within the topic.
    pub partition: u32,
    /// Raft group of the partition.
    pub group: GroupId,
    /// This node's replica of it.
    pub replica: ReplicaId,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// One replica of one partition, running on this node.
#[derive(Debug)]
pub struct Partition {
    pub(super) id: PartitionId,
    pub(super) host: Arc<NodeContext>,
    /// Its Raft, its log and its applied state.
    pub(super) replica: Replica<PartitionMachine>,
    pub(super) settings: RwLock<TopicSettings>,
    /// Check that refuses batches before they are proposed.
    pub(super) gate: Arc<Gate>,
    /// Start of the last round of messages in which a majority confirmed this replica as the leader.
    pub(super) confirmed: tokio::sync::Mutex<Option<Instant>>,
    /// Segment for which a roll was proposed last, as one more than the log index of the boundary before it.
    /// Prevents a second proposal for the same segment.
    pub(super) roll_asked: AtomicU64,
    /// Purgeable index for which the purge is done. The purge may end below it, at the newest checkpoint.
    pub(super) purge_done: AtomicU64,
    /// Compaction progress of this replica.
    pub(super) compacted: Mutex<Progress>,
    /// Compaction progress of the others, as reported while this replica leads.
    pub(super) claims: Claims,
    /// Desired replicas without a vote, while this replica leads. Entries for them are rate-limited.
    pub(super) newcomers: Newcomers,
    /// Recent ends of the log. A follower that has reached them is in sync.
    pub(super) pace: Mutex<CatchUpBaseline>,
    /// Epoch in which this replica leads; `None` if it does not. Waiting readers and group sessions watch it.
    pub(super) leads: watch::Sender<Option<u64>>,
    /// True once its Raft has ended, even by a panic.
    pub(super) ended: AtomicBool,
    /// Traffic counters of its topic on this node.
    pub(super) traffic: Arc<Topic>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Partition {
    /// Opens the replica's log and state, and starts its Raft.
    pub(super) async fn start(
        host: Arc<NodeContext>,
        id: PartitionId,
        settings: TopicSettings,
    ) -> Result<Arc<Partition>, StartError> {
        let opened = host
            .store
            .open_replica(id.group, id.replica, PartitionMachine::default())
            .await?;
        let network = host.peers.network(id.group, id.replica);
        let network = network.traced(host.store.traces().clone());
        let (claims, newcomers) = (network.claims(), network.newcomers());
        let compacted = Progress::load(&opened.view).await;
        let compacted = compacted.map_err(StoreError::from)?;
        let (inbound, limits) = (&host.inbound, &host.limits);
        let replica = Replica::start(opened, network, inbound, limits, &id.to_string()).await?;
        host.inbound.compacted(id.replica, compacted.to_offset);
        let traffic = host.metrics.topics.of(&id.topic);
        let partition = Arc::new(Partition {
            traffic,
            id,
            host,
            replica,
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
            .spawn(reconciler::run(partition.clone(), partition.stop.clone()));
        partition.tasks.close();
        tracing::debug!(
            partition = %partition.id,
            replica = %partition.id.replica,
            "replica started"
        );
        Ok(partition)
    }

    /// Stops receiving the group's messages, then stops the replica. Data on disk stays.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.replica.close();
        let stopped = async {
            self.tasks.wait().await;
            self.replica.stop().await
        };
        if tokio::time::timeout(STOP_WITHIN, stopped).await.is_err() {
            tracing::warn!(partition = %self.id, "replica did not stop within {STOP_WITHIN:?}");
        }
    }

    /// Identity of this replica.
    pub fn id(&self) -> &PartitionId {
        &self.id
    }

    /// Traffic counters of its topic on this node.
    pub fn traffic(&self) -> &Topic {
        &self.traffic
    }

    /// Bytes of this replica's log.
    pub fn log_bytes(&self) -> u64 {
        self.replica.view.log_bytes()
    }

    /// Returns true while its Raft runs. It ends for good if its disk or its state fails.
    pub fn is_running(&self) -> bool {
        let ended = self.ended.load(Ordering::Relaxed);
        !ended && self.with_metrics(|metrics| metrics.running_state.is_ok())
    }

    /// Returns true if this replica leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.replica.leads()
    }

    /// Creates a pass over all stored data of this replica, to find damage.
    pub(crate) fn scrub(&self) -> Scrub {
        self.replica.view.scrub()
    }

    /// Returns the epoch in which this replica leads, or an error with the leader.
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

    /// Returns the epoch of the last entry applied here. Once it is the leader's own epoch, all entries of
    /// earlier leaders are applied.
    pub(super) fn applied_epoch(&self) -> Option<u64> {
        self.with_metrics(|metrics| {
            let applied = metrics.last_applied.as_ref();
            applied.map(|applied| applied.committed_leader_id().term)
        })
    }

    /// Refuses to serve from a damaged replica.
    pub(super) fn check_sound(&self) -> Result<(), WireError> {
        if self.replica.view.is_damaged() {
            return Err(self.error(
                ErrorCode::NotServing,
                "its replica on this node is damaged and has left its group; ask its other nodes",
            ));
        }
        Ok(())
    }

    pub(super) fn with_metrics<R>(&self, look: impl FnOnce(&RaftMetrics<TypeConfig>) -> R) -> R {
        self.replica.with_metrics(look)
    }

    fn not_leader(&self, metrics: &RaftMetrics<TypeConfig>) -> WireError {
        if let Err(fatal) = &metrics.running_state {
            return self.error(
                ErrorCode::NotServing,
                format!("its replica on this node has stopped: {fatal}; ask another node"),
            );
        }
        let view = self.host.view.borrow().clone();
        let wish = view.partition(&self.id.topic, self.id.partition);
        // Without a successor, Raft still names a leader that is damaged or gone.
        let lost = |leader: ReplicaId| wish.is_some_and(|wish| wish.is_lost(leader, &view));
        let leader = leadership::leader(metrics)
            .filter(|(leader, _)| *leader != self.id.replica && !lost(*leader));
        match leader {
            Some((_, node)) => self.error(
                ErrorCode::NotLeader,
                format!("{node} is the leader; ask that node"),
            ),
            None => match wish.and_then(|wish| wish.lost_majority(&view)) {
                Some(nodes) => lost_majority(&self.id, &nodes),
                None => self.error(
                    ErrorCode::NoLeader,
                    "no leader: an election is in progress, or too few of its nodes are up; try \
                     again shortly",
                ),
            },
        }
    }

    /// Error for a request to a replica that does not lead, with the leader if known.
    pub(super) fn not_leader_now(&self) -> WireError {
        self.with_metrics(|metrics| self.not_leader(metrics))
    }

    pub(super) fn error(&self, code: ErrorCode, what: impl fmt::Display) -> WireError {
        WireError::new(code, format!("partition {}: {what}", self.id))
    }

    /// Confirms the leadership with a majority (Raft's ReadIndex). Returns once everything that any leader has
    /// acknowledged so far is applied here.
    pub(super) async fn catch_up(&self) -> Result<(), WireError> {
        let within = Duration::from_millis(self.host.limits.peer_rpc_timeout_ms);
        let read = async {
            let linearizer = self
                .replica
                .raft
                .get_read_linearizer(ReadPolicy::ReadIndex)
                .await;
            let linearizer = linearizer.map_err(|_| self.not_leader_now())?;
            linearizer
                .await_ready(&self.replica.raft)
                .await
                .map_err(|_| self.not_leader_now())?;
            Ok(())
        };
        let late = |_| {
            self.error(
                ErrorCode::NoLeader,
                "its leader could not be confirmed because too few of its nodes answered; try \
                 again shortly",
            )
        };
        tokio::time::timeout(within, read).await.map_err(late)?
    }

    /// Transfers leadership from this replica to the one on node `to`.
    ///
    /// # Errors
    /// `NotLeader` if another node leads; `InvalidRequest` if `to` has no voting replica; `Unsafe` if its
    /// replica does not keep up; `Timeout` if it has not taken over in time.
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
                format!("node {to} has no voting replica of it; name a node that has one"),
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

    /// Transfers leadership to `target` and waits until this replica no longer leads.
    pub(super) async fn hand_over(&self, target: ReplicaId) -> Result<(), WireError> {
        if target == self.id.replica {
            return Ok(());
        }
        // If the target does not take over, the others elect after two timeouts at most.
        let within = Duration::from_millis(self.host.limits.election_timeout_ms.saturating_mul(4));
        leadership::offer(&self.replica.raft, target)
            .await
            .map_err(|_| self.not_leader_now())?;
        match leadership::has_left(&self.replica.raft, within).await {
            true => Ok(()),
            false => Err(self.error(
                ErrorCode::Timeout,
                format!("replica {target} has not become leader yet; check again shortly"),
            )),
        }
    }
}
