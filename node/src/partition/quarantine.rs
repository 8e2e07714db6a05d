//! Replicas whose data is damaged: they leave their group at once, are marked on the disk so that
//! they never run again, and are told to the metadata group, which gives this node a new replica in
//! their place.
//!
//! What they hold stays until the committed membership of their group is without them, like that of
//! any replica that was let go. Nothing here deletes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId};
use ropewalk_proto::v1::{ReplicaDamaged, meta_command};
use tokio::time::{Instant, timeout};

use super::balance::Balance;
use super::followers::{Group, Pace};
use super::host::Host;
use super::replica::{Partition, PartitionId};
use super::steward::may_lead;
use crate::cluster::ClusterView;

/// How long a damaged leader tries to hand over before it just stops.
const HAND_OVER_WITHIN: Duration = Duration::from_millis(500);
/// How long a damaged replica waits for its Raft to stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Between two reports of damage in the same group: the next may be of the same replica, or of its
/// successor, where nothing that is written stays whole.
const TELL_AGAIN: Duration = Duration::from_secs(5);
/// Between two log lines about a partition that can't be repaired.
pub(super) const SAY_AGAIN: Duration = Duration::from_secs(60);

/// The damaged replicas of a node that the metadata still names.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    held: BTreeMap<ReplicaId, Held>,
    /// When damage was told of last, by group.
    told: BTreeMap<GroupId, Instant>,
    /// How many were ever taken in.
    taken: u64,
}

#[derive(Debug)]
struct Held {
    id: PartitionId,
    why: String,
    /// The mark is on the disk.
    marked: bool,
    said: Option<Instant>,
}

impl Quarantine {
    /// Whether a replica must not run.
    pub(super) fn holds(&self, replica: ReplicaId) -> bool {
        self.held.contains_key(&replica)
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// How many were ever taken in.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes in a replica, which has been stopped or never ran.
    pub(super) fn take(&mut self, id: PartitionId, why: String) {
        tracing::error!(
            partition = %id,
            replica = %id.replica,
            why,
            "a replica is damaged: it has left its group, its data stays as it is until a new \
             replica stands in its place"
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

    /// Marks what is not marked yet, tells what the metadata does not know yet, and forgets what it
    /// names no more.
    pub(super) async fn settle(
        &mut self,
        host: &Host,
        view: &ClusterView,
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
    async fn mark(&mut self, host: &Host) {
        if self.marked {
            return;
        }
        match host.store.quarantine(self.id.replica, &self.why).await {
            Ok(()) => self.marked = true,
            Err(error) => {
                tracing::warn!(partition = %self.id, %error, "a damaged replica could not be marked; trying again");
            }
        }
    }

    fn tell(&mut self, host: &Host, view: &ClusterView, told: &mut BTreeMap<GroupId, Instant>) {
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
                // If there is no room now, it is told again.
                let _ = host.facts.try_send(fact);
            }
        } else if let Some(nodes) = wish.lost_majority(view)
            && due(&mut self.said, SAY_AGAIN)
        {
            tracing::error!("{}", lost_majority(&self.id, &nodes).message);
        }
    }
}

/// Whether it is time again, counted from the last time it was.
pub(super) fn due(last: &mut Option<Instant>, every: Duration) -> bool {
    let due = last.is_none_or(|at| at.elapsed() >= every);
    if due {
        *last = Some(Instant::now());
    }
    due
}

/// Why a partition serves nobody when a majority of its replicas is damaged or gone.
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
            "partition {id}: its data on node {names} is damaged or gone, and what is left is no \
             majority, so it is not repaired by itself; nothing was deleted. Bring the data \
             directories back if you can, or delete its topic and publish it again"
        ),
    )
}

impl Partition {
    /// Takes this replica, which was found damaged, out of its group: it votes no more, and neither
    /// leads nor serves.
    pub(super) async fn withdraw(&self) {
        self.host.inbound.deregister(self.id.replica);
        self.host.damage_found.notify_one();
        self.raft.runtime_config().elect(false);
        let handed = async {
            if let Some(heir) = self.any_heir() {
                // The others elect one of them if none takes over.
                let _ = self.hand_over(heir).await;
            }
        };
        let _ = timeout(HAND_OVER_WITHIN, handed).await;
        if timeout(STOP_WITHIN, self.raft.shutdown()).await.is_err() {
            tracing::warn!(partition = %self.id, "the damaged replica did not stop within {STOP_WITHIN:?}");
        }
    }

    /// Another voter that could lead at once, if this replica leads.
    pub(super) fn any_heir(&self) -> Option<ReplicaId> {
        let view = self.host.view.borrow().clone();
        self.with_metrics(|metrics| {
            if !metrics.state.is_leader() {
                return None;
            }
            let dead_after = Duration::from_millis(self.host.limits.node_dead_after_ms);
            let group = Group::see(metrics, &Pace::default(), dead_after);
            let wish = view.partition(&self.id.topic, self.id.partition)?;
            let own = self.host.node_id;
            let able = |node| node != own && may_lead(&view, node);
            Balance::default().heir(&wish.replicas, &group, able)
        })
    }
}
