//! The controller: runs on the leader of the metadata group. It compares the cluster's desired state with its
//! actual state and takes the next step of each kind.
//!
//! Between two rounds it keeps only the time at which it began to lead, so any node can take over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ropewalk_machines::meta::balance::rebalance;
use ropewalk_machines::meta::raise;
use ropewalk_machines::meta::view::{MetadataImage, PartitionImage};
use ropewalk_proto::error::WireError;
use ropewalk_proto::ids::{NodeId, ReplicaId};
use ropewalk_proto::v1::{
    FoundCluster, MetaCommand, MoveReplicas, NodeState, SetNodeState, meta_command,
};
use tokio::time::{Instant, sleep};

use super::context::{ClusterContext, MetadataReplica};
use super::handle::refresh_view;
use super::members::Members;
use super::propose::propose_here;
use crate::raft::{self, CaughtUp, FormerVoters, NotTaken, ReplicationStatus, Step, leadership};

/// Maximum number of partitions whose replicas move at the same time.
const MOVES_AT_ONCE: usize = 8;
/// A replica at most this many entries behind the leader counts as caught up.
const CAUGHT_UP_ENTRIES: u64 = 64;
/// Time for a follower to take over the leadership before it is asked again.
const TAKE_OVER_WITHIN: Duration = Duration::from_millis(500);

/// Runs rounds whenever this node leads the metadata group, until its replica stops.
pub(super) async fn control(shared: Arc<ClusterContext>, meta: MetadataReplica) {
    let pause = Duration::from_millis(shared.config.limits.reconcile_interval_ms.max(1));
    loop {
        let leads = meta.raft.wait(None);
        let leads = leads.metrics(|metrics| metrics.state.is_leader(), "to lead");
        if leads.await.is_err() {
            return;
        }
        tracing::info!("node became leader of the metadata group");
        let since = Instant::now();
        while meta.leads() {
            if let Err(error) = round(&shared, &meta, since).await {
                tracing::info!(%error, "cluster change failed; retrying");
            }
            sleep(pause).await;
        }
    }
}

/// One round over the whole cluster. The first error ends it; the next round starts from the beginning.
async fn round(
    shared: &ClusterContext,
    meta: &MetadataReplica,
    since: Instant,
) -> Result<(), WireError> {
    refresh_view(shared, meta);
    let view = shared.view.borrow().clone();
    if view.cluster_id.is_empty() {
        let identity = shared.identity();
        let founding = FoundCluster {
            cluster_id: identity.cluster_id,
            nodes: identity.founding,
        };
        return change(shared, meta, meta_command::Kind::FoundCluster(founding)).await;
    }
    let lost = lost(shared, &view, since);
    settle_members(shared, meta, &view, &lost).await;
    let own = view.nodes.get(&shared.node_id());
    if own.is_some_and(|own| own.state != NodeState::Active) {
        // A node that drains or leaves transfers the leadership of this group, if another node can take it.
        offer_lead(shared, meta, |_, state| state == NodeState::Active).await;
    }
    for node in emptied(&view) {
        let command = SetNodeState {
            node_id: node.0,
            state: NodeState::Removed.into(),
        };
        tracing::info!(%node, "decommissioned node holds no replicas: removing it");
        change(shared, meta, meta_command::Kind::SetNodeState(command)).await?;
    }
    // Internal topics get more replicas before any move begins: this would have to wait for the move to finish.
    let raises = raise::due(&view, |node| shared.leaders.alive(node));
    let raised = !raises.is_empty();
    for more in raises {
        let (topic, replicas) = (&more.topic, more.replicas);
        tracing::info!(
            topic,
            replicas,
            "internal topic needs more replicas: adding them"
        );
        change(shared, meta, meta_command::Kind::RaiseReplicas(more)).await?;
    }
    if raised {
        return Ok(());
    }
    for (group, nodes) in next_moves(&view, &lost, |node| shared.leaders.alive(node)) {
        tracing::info!(%group, ?nodes, "moving replicas");
        let command = MoveReplicas {
            group_id: group.0,
            node_ids: nodes.into_iter().map(|node| node.0).collect(),
        };
        // A partition that cannot move must not block the others.
        if let Err(error) = change(shared, meta, meta_command::Kind::MoveReplicas(command)).await {
            tracing::info!(%group, %error, "replica move failed; retrying");
        }
    }
    Ok(())
}

async fn change(
    shared: &ClusterContext,
    meta: &MetadataReplica,
    kind: meta_command::Kind,
) -> Result<(), WireError> {
    let command = MetaCommand {
        leader_time_ms: 0, // the proposing node sets it
        kind: Some(kind),
    };
    let answer = propose_here(shared, meta, command).await?;
    match answer.reply.and_then(|reply| reply.kind) {
        Some(ropewalk_proto::v1::meta_reply::Kind::Error(error)) => Err(error.into()),
        _ => Ok(()),
    }
}

/// The nodes that have been silent for so long that other nodes get their replicas. Silence counts from the
/// start of this node's leadership at the earliest.
fn lost(shared: &ClusterContext, view: &MetadataImage, since: Instant) -> BTreeSet<NodeId> {
    let bound = Duration::from_millis(shared.config.limits.node_lost_after_ms);
    let own = shared.node_id();
    let silent = |node: &NodeId| {
        let heard = shared.leaders.last_heard(*node);
        heard.map_or(since, |heard| heard.max(since)).elapsed() >= bound
    };
    let nodes = view.nodes.values();
    let nodes = nodes.filter(|node| node.state != NodeState::Removed && node.id != own);
    nodes.map(|node| node.id).filter(silent).collect()
}

/// The nodes that are being decommissioned and no longer hold a replica.
fn emptied(view: &MetadataImage) -> Vec<NodeId> {
    let holders: BTreeSet<NodeId> = view
        .partitions()
        .flat_map(|partition| partition.replicas.iter().chain(&partition.retiring))
        .map(|place| place.node)
        .collect();
    let leaving = view.nodes.values();
    let leaving = leaving.filter(|node| node.state == NodeState::Decommissioning);
    let empty = leaving.filter(|node| !holders.contains(&node.id));
    empty.map(|node| node.id).collect()
}

/// The moves to begin now. None adds a replica to a silent node, and at most [`MOVES_AT_ONCE`] are in progress.
fn next_moves(
    view: &MetadataImage,
    lost: &BTreeSet<NodeId>,
    alive: impl Fn(NodeId) -> bool,
) -> Vec<(ropewalk_proto::ids::GroupId, Vec<NodeId>)> {
    let partitions: BTreeMap<_, &PartitionImage> =
        view.partitions().map(|one| (one.group, one)).collect();
    let moving = |one: &PartitionImage| !one.retiring.is_empty();
    let under_way = partitions.values().filter(|one| moving(one)).count();
    let room = MOVES_AT_ONCE.saturating_sub(under_way);
    let possible = rebalance(view, lost).into_iter().filter(|(group, nodes)| {
        let Some(partition) = partitions.get(group) else {
            return false;
        };
        let holds = |node: &NodeId| partition.replicas.iter().any(|place| place.node == *node);
        nodes.iter().all(|node| holds(node) || alive(*node))
    });
    possible.take(room).collect()
}

/// Takes the next step toward the metadata group's desired membership.
async fn settle_members(
    shared: &ClusterContext,
    meta: &MetadataReplica,
    view: &MetadataImage,
    lost: &BTreeSet<NodeId>,
) {
    let group = group(meta);
    let since = group.since;
    let members = Members::of(group);
    // With an older view the step could drop a replica that was added since.
    if !view.knows(members.brokers.keys()) {
        return;
    }
    let Some(step) = members.next(view, lost) else {
        return;
    };
    tracing::info!(?step, "changing the metadata group's membership");
    // openraft keeps sending to the replica's old address. A learner is therefore removed and added again.
    // After a voter moves, another replica takes the leadership and opens new connections.
    let moved = match &step {
        Step::MoveMember(replica, _) if *replica != meta.id => Some(*replica),
        _ => None,
    };
    let step = match step {
        Step::MoveMember(replica, _) if !members.voters.contains(&replica) => {
            Step::RemoveLearners(BTreeSet::from([replica]))
        }
        other => other,
    };
    // Former voters stay, so that a leaving node sees its own removal.
    let former = FormerVoters::StayAsLearners;
    match raft::take_step(&meta.raft, step, since, former, shared.call_timeout() * 2).await {
        Ok(()) => {
            if let Some(moved) = moved.filter(|replica| members.voters.contains(replica)) {
                offer_lead(shared, meta, |replica, _| replica != moved).await;
            }
        }
        Err(NotTaken::Late) => tracing::info!("metadata membership change is still in progress"),
        Err(error) => tracing::info!(%error, "metadata membership change failed; retrying"),
    }
}

/// The metadata group as this replica sees it; complete only on the leader.
fn group(meta: &MetadataReplica) -> ReplicationStatus {
    meta.with_metrics(|metrics| {
        ReplicationStatus::see(metrics, CaughtUp::within(CAUGHT_UP_ENTRIES, metrics))
    })
}

/// Transfers the leadership to another voter. Returns once this node no longer leads, or if no voter can take
/// over.
pub(super) async fn hand_over(shared: &ClusterContext, meta: &MetadataReplica) {
    while meta.leads() && offer_lead(shared, meta, |_, _| true).await {
        // A follower that is too slow is asked again; a stopped replica no longer leads.
        leadership::has_left(&meta.raft, TAKE_OVER_WITHIN).await;
    }
}

/// Asks a voter that is alive, has caught up and is allowed by `may` to take the leadership, preferably one on
/// an active node. Returns false if there is none, or if the request failed.
async fn offer_lead(
    shared: &ClusterContext,
    meta: &MetadataReplica,
    may: impl Fn(ReplicaId, NodeState) -> bool,
) -> bool {
    let view = shared.view.borrow().clone();
    let members = Members::of(group(meta));
    let heirs = members.voters.iter().filter_map(|replica| {
        let node = view.nodes.get(&members.brokers.get(replica)?.node_id)?;
        let able = *replica != meta.id
            && members.caught_up.contains(replica)
            && may(*replica, node.state)
            && shared.leaders.alive(node.id);
        able.then_some((node.state != NodeState::Active, *replica))
    });
    let Some((_, heir)) = heirs.min() else {
        return false;
    };
    if let Err(error) = leadership::offer(&meta.raft, heir).await {
        tracing::info!(%error, "metadata leadership transfer failed");
        return false;
    }
    true
}
