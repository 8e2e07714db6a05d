//! Replicas whose data is damaged. **A damaged replica never runs again.** It leaves its group at once, and
//! is marked on disk. The node reports it to the metadata group, which places a new replica on this node
//! instead.
//!
//! The data of a damaged replica stays until the committed membership of its group no longer has it, like
//! that of any other removed replica. Nothing here deletes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use ropewalk_machines::meta::MetadataImage;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId};
use ropewalk_proto::v1::{ReplicaDamaged, meta_command};
use tokio::time::{Instant, timeout};

use super::node_context::NodeContext;
use super::preferred_leader::PreferredLeader;
use super::reconciler::may_lead;
use super::replica::{Partition, PartitionId};
use crate::raft::{CatchUpBaseline, ReplicationStatus, STOP_WITHIN};

/// Maximum time that a damaged leader tries to transfer leadership before it stops.
const HAND_OVER_WITHIN: Duration = Duration::from_millis(500);
/// Interval of damage reports of the same group. The next report may be for the same replica. It may also be
/// for its successor, on a disk that damages all writes.
const TELL_AGAIN: Duration = Duration::from_secs(5);
/// Interval of the log lines about a partition that cannot be repaired.
pub(super) const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Damaged replicas of a node that the metadata still names.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    held: BTreeMap<ReplicaId, Held>,
    /// Time of the last damage report, by group.
    told: BTreeMap<GroupId, Instant>,
    /// Number of replicas ever quarantined.
    taken: u64,
}

#[derive(Debug)]
struct Held {
    id: PartitionId,
    why: String,
    /// True once the mark is on disk.
    marked: bool,
    said: Option<Instant>,
}

impl Quarantine {
    /// Returns true if a replica must not run.
    pub(super) fn holds(&self, replica: ReplicaId) -> bool {
        self.held.contains_key(&replica)
    }

    /// Number of quarantined replicas.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Number of replicas ever quarantined.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Quarantines a replica, which must be stopped, or never have run.
    pub(super) fn take(&mut self, id: PartitionId, why: String) {
        tracing::error!(
            partition = %id,
            replica = %id.replica,
            why,
            "replica set aside as damaged: it has left its group, and its data is kept until a \
             new replica replaces it"
        );
        let held = Held {
            id: id.clone(),
            why,
            marked: false,
            said: None,
        };
        if !self.holds(id.replica) {
            self.taken += 1;
            self.held.insert(id.replica, held);
        }
    }

    /// Marks replicas that are not marked yet, reports damage that the metadata does not know yet, and drops
    /// replicas that the metadata no longer names.
    pub(super) async fn settle(
        &mut self,
        host: &NodeContext,
        view: &MetadataImage,
        is_named: impl Fn(ReplicaId) -> bool,
    ) {
        self.held.retain(|replica, _| is_named(*replica));
        self.told.retain(|_, at| at.elapsed() < TELL_AGAIN);
        for held in self.held.values_mut() {
            held.mark(host).await;
            held.tell(host, view, &mut self.told);
        }
    }
}

impl Held {
    async fn mark(&mut self, host: &NodeContext) {
        if self.marked {
            return;
        }
        match host.store.quarantine(self.id.replica, &self.why).await {
            Ok(()) => self.marked = true,
            Err(error) => {
                tracing::warn!(
                    partition = %self.id,
                    %error,
                    "damaged replica could not be marked; retrying"
                );
            }
        }
    }

    fn tell(
        &mut self,
        host: &NodeContext,
        view: &MetadataImage,
        told: &mut BTreeMap<GroupId, Instant>,
    ) {
        let wish = view.partition(&self.id.topic, self.id.partition);
        let Some(wish) = wish.filter(|wish| wish.group == self.id.group) else {
            return;
        };
        if !wish.damaged.contains(&self.id.replica) {
            if let Entry::Vacant(first) = told.entry(self.id.group) {
                first.insert(Instant::now());
                let fact = meta_command::Kind::ReplicaDamaged(ReplicaDamaged {
                    group_id: self.id.group.0,
                    replica_id: self.id.replica.0,
                });
                // If the queue is full, the report is repeated.
                let _ = host.facts.try_send(fact);
            }
        } else if let Some(nodes) = wish.lost_majority(view)
            && due(&mut self.said, SAY_AGAIN)
        {
            tracing::error!("{}", lost_majority(&self.id, &nodes).message);
        }
    }
}

/// Returns true, and restarts the interval, if it is over.
pub(super) fn due(last: &mut Option<Instant>, every: Duration) -> bool {
    let due = last.is_none_or(|at| at.elapsed() >= every);
    if due {
        *last = Some(Instant::now());
    }
    due
}

/// Error of a partition that cannot serve, because a majority of its replicas is damaged or gone.
pub(crate) fn lost_majority(id: &dyn std::fmt::Display, nodes: &BTreeSet<NodeId>) -> WireError {
    let mut names = String::new();
    for node in nodes {
        let comma = if names.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(names, "{comma}{node}");
    }
    WireError::new(
        ErrorCode::DamagedData,
        format!(
            "partition {id}: its data on node {names} is damaged or gone, and the remaining \
             replicas are no majority, so it is not repaired automatically; nothing was deleted. \
             Bring the data directories back if you can, or delete its topic and publish it again"
        ),
    )
}

impl Partition {
    /// Takes this damaged replica out of its group: it no longer votes, leads or serves.
    pub(super) async fn withdraw(&self) {
        self.replica.withdraw();
        self.host.damage_found.notify_one();
        let handed = async {
            if let Some(heir) = self.any_heir() {
                // If no replica takes over, the others hold an election.
                let _ = self.hand_over(heir).await;
            }
        };
        let _ = timeout(HAND_OVER_WITHIN, handed).await;
        if timeout(STOP_WITHIN, self.replica.stop()).await.is_err() {
            tracing::warn!(
                partition = %self.id,
                "damaged replica did not stop within {STOP_WITHIN:?}"
            );
        }
    }

    /// Returns another voter that could lead at once, if this replica leads.
    pub(super) fn any_heir(&self) -> Option<ReplicaId> {
        let view = self.host.view.borrow().clone();
        self.with_metrics(|metrics| {
            if !metrics.state.is_leader() {
                return None;
            }
            let dead_after = Duration::from_millis(self.host.limits.node_dead_after_ms);
            let group =
                ReplicationStatus::see(metrics, CatchUpBaseline::default().caught_up(dead_after));
            let wish = view.partition(&self.id.topic, self.id.partition)?;
            let own = self.host.node_id;
            let able = |node| node != own && may_lead(&view, node);
            PreferredLeader::default().heir(&wish.replicas, &group, able)
        })
    }
}
