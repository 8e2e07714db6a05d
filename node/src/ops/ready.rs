//! Whether a node can do its part, and if not, why: about this node only, never about its cluster. A
//! node whose peers are gone is as ready as it can be, and to take its traffic away would help nobody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ropewalk_proto::ids::{GroupId, NodeId};
use ropewalk_raft_store::DiskStatus;
use serde::Serialize;
use tokio::time::Instant;

use super::Seen;
use crate::cluster::view::PartitionView;
use crate::cluster::{Cluster, ClusterView};

/// A metadata replica with so much left to apply shows a cluster that is no more.
const METADATA_BEHIND: u64 = 1_000;
/// How long a partition may have no leader that is known here before a node that has just begun is
/// ready without its replica of it.
const LEADER_WITHIN: Duration = Duration::from_secs(30);
/// The most partitions named in a reason.
const NAMED: usize = 5;

/// The replicas that were placed here when the node began, and have not been seen to keep up since. One
/// that has, or comes later, never makes the node unready: it would come and go with every move.
#[derive(Debug)]
pub struct Returning {
    since: Instant,
    groups: BTreeSet<GroupId>,
}

impl Returning {
    /// Those of a node that has just come to its cluster.
    pub fn new(cluster: &Cluster) -> Returning {
        let view = cluster.view().borrow().clone();
        let placed = placed(&view, cluster.node_id());
        Returning {
            since: Instant::now(),
            groups: placed.map(|(_, partition)| partition.group).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    ready: bool,
    node_id: u64,
    why_not: Vec<String>,
}

pub(super) async fn readyz(State(seen): State<Arc<Seen>>) -> (StatusCode, Json<Readiness>) {
    let why_not = why_not(&seen);
    let ready = why_not.is_empty();
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let node_id = seen.cluster.node_id().0;
    let readiness = Readiness {
        ready,
        node_id,
        why_not,
    };
    (status, Json(readiness))
}

/// Everything that keeps the node from its part.
pub(super) fn why_not(seen: &Seen) -> Vec<String> {
    let mut why_not = Vec::new();
    if seen.stopping.is_cancelled() {
        why_not.push("this node is stopping: it hands its leaderships over".to_owned());
    }
    let view = seen.cluster.view().borrow().clone();
    let own = seen.cluster.node_id();
    if !view.nodes.contains_key(&own) {
        why_not.push("this node is in no cluster yet; its log says what it waits for".to_owned());
    } else if seen.cluster.controller().is_none() {
        why_not.push("the metadata group has no leader that this node knows of".to_owned());
    }
    if let Some((applied, last)) = seen.cluster.metadata_progress()
        && last.saturating_sub(applied) > METADATA_BEHIND
    {
        why_not.push(format!(
            "its picture of the cluster is old: {applied} of {last} entries of the metadata log are applied"
        ));
    }
    match &*seen.store.disk_status().borrow() {
        DiskStatus::Healthy => {}
        DiskStatus::Full => why_not.push("the disk is full; writes are refused".to_owned()),
        DiskStatus::Failed(reason) => why_not.push(format!("the disk failed: {reason}")),
    }
    why_not.extend(behind(seen, &view, own));
    why_not
}

/// The partitions this node should hold a replica of, and that is not damaged.
fn placed(view: &ClusterView, own: NodeId) -> impl Iterator<Item = (&str, &PartitionView)> {
    let all = view.topics.values().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| (topic.name.as_str(), partition))
    });
    all.filter(move |(_, partition)| {
        let mut here = partition.replicas.iter();
        here.any(|at| at.node == own && !partition.damaged.contains(&at.replica))
    })
}

/// Says which replicas the node began with are not back yet, if any.
fn behind(seen: &Seen, view: &ClusterView, own: NodeId) -> Option<String> {
    let joined = seen.joined.get()?;
    let mut returning = joined.returning.lock();
    if returning.groups.is_empty() {
        return None;
    }
    let patient = returning.since.elapsed() < LEADER_WITHIN;
    let (mut still, mut names, mut count) = (BTreeSet::new(), Vec::new(), 0);
    for (topic, partition) in placed(view, own) {
        if !returning.groups.contains(&partition.group) {
            continue;
        }
        let runs = joined.partitions.get(partition.group).is_some();
        let leader = seen.cluster.leaders().get(partition.group);
        let keeps_up = leader.map(|leader| leader.in_sync.contains(&own));
        if runs && keeps_up == Some(true) {
            continue;
        }
        still.insert(partition.group);
        // Who has no leader can't be behind it: that is another's fault.
        if !runs || keeps_up == Some(false) || patient {
            count += 1;
            if names.len() < NAMED {
                names.push(format!("{topic}/{}", partition.partition));
            }
        }
    }
    returning.groups = still;
    (count > 0).then(|| {
        let more = if count > names.len() { ", ..." } else { "" };
        format!(
            "{count} of the replicas it began with are not caught up yet: {}{more}",
            names.join(", ")
        )
    })
}
