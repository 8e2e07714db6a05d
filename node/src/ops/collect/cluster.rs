//! Metrics about the cluster, as this node knows it.

use std::fmt;

use ropewalk_machines::meta::MetadataImage;
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1::NodeState;

use super::flag;
use crate::metrics::names;
use crate::metrics::page::Page;
use crate::ops::OpsContext;

/// The states of a node, with the command line's names.
const STATES: [(NodeState, &str); 3] = [
    (NodeState::Active, "active"),
    (NodeState::Draining, "draining"),
    (NodeState::Decommissioning, "decommissioning"),
];

pub(super) fn write(page: &mut Page, seen: &OpsContext) -> fmt::Result {
    let view = seen.cluster.view().borrow().clone();
    let own = seen.cluster.node_id();
    nodes(page, seen, &view, own)?;
    let controller = seen.cluster.controller();
    let leads = controller.is_some() && controller == Some(own);
    page.one(&names::CONTROLLER, flag(leads))?;
    page.one(&names::CONTROLLER_KNOWN, flag(controller.is_some()))?;
    page.one(&names::CLUSTER_TOPICS, view.topics.len() as f64)?;
    let partitions = view.partitions().count();
    page.one(&names::CLUSTER_PARTITIONS, partitions as f64)?;
    let leaders = seen.cluster.leaders();
    let leaderless = view
        .partitions()
        .filter(|partition| leaders.get(partition.group).is_none());
    page.one(&names::LEADERLESS, leaderless.count() as f64)?;
    let led = leaders.led();
    let short = view.partitions().filter(|partition| {
        let told = led.get(&partition.group);
        told.is_some_and(|told| {
            let mut places = partition.replicas.iter();
            !places.all(|place| told.in_sync.contains(&place.node))
        })
    });
    page.one(&names::UNDER_REPLICATED, short.count() as f64)?;
    peers(page, seen)
}

fn nodes(page: &mut Page, seen: &OpsContext, view: &MetadataImage, own: NodeId) -> fmt::Result {
    let of_own = view.nodes.get(&own).map(|node| node.state);
    let rows = STATES.map(|(state, name)| ([("state", name)], flag(of_own == Some(state))));
    page.rows(&names::NODE_STATE, rows)?;
    let count = |state| {
        let nodes = view.nodes.values();
        nodes.filter(|node| node.state == state).count() as f64
    };
    let rows = STATES.map(|(state, name)| ([("state", name)], count(state)));
    page.rows(&names::CLUSTER_NODES, rows)?;
    let offline = view.nodes.values().filter(|node| {
        node.state != NodeState::Removed && node.id != own && !seen.cluster.alive(node.id)
    });
    page.one(&names::OFFLINE_NODES, offline.count() as f64)
}

fn peers(page: &mut Page, seen: &OpsContext) -> fmt::Result {
    let peers = seen.peers.traffic().all();
    let rows = peers.iter().filter_map(|(id, peer)| {
        let took = peer.round_trip()?;
        Some(([("peer", id.to_string())], took.as_secs_f64()))
    });
    page.rows(&names::PEER_ROUND_TRIP, rows)?;
    let rows = peers.iter();
    let rows = rows.map(|(id, peer)| ([("peer", id.to_string())], peer.failures() as f64));
    page.rows(&names::PEER_FAILURES, rows)
}
