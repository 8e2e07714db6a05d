//! Reports of this node's leaderships to every other node: at once after a change, and every second. They
//! also serve as heartbeats.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ropewalk_machines::meta::machine::MetaMachine;
use ropewalk_machines::meta::view::MetadataImage;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, NodeId};
use ropewalk_proto::v1::{NodeState, PartitionReport, ReportCall};
use ropewalk_raft_store::DiskStatus;
use ropewalk_raft_store::convert;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::Request;

use super::bootstrap::bounded;
use super::context::{ClusterContext, MetadataReplica};
use super::leaders::LeaderInfo;
use crate::config::REPORT_EVERY;

/// Maximum number of groups in one report that this node does not know.
const UNKNOWN_GROUPS: usize = 4_096;
/// Time that a change waits for further changes to join its report.
const GATHER: Duration = Duration::from_millis(10);
/// Extra wait for each group that this node leads: a report contains all of them.
const GATHER_EACH: Duration = Duration::from_micros(50);

/// Runs one reporting task for each other node of the cluster.
pub(super) async fn report_to_all(shared: Arc<ClusterContext>) {
    let mut views = shared.view.subscribe();
    let mut tasks: BTreeMap<NodeId, (String, AbortOnDropHandle<()>)> = BTreeMap::new();
    loop {
        let view = views.borrow_and_update().clone();
        let wanted = addresses(&view, shared.node_id());
        if view.nodes.contains_key(&shared.node_id()) {
            let voters = shared
                .meta()
                .map(MetadataReplica::voters)
                .unwrap_or_default();
            let holders = holders(&view, voters);
            let others = wanted.keys().filter(|node| holders.contains(node));
            shared.clock.set_others(others.copied());
        }
        tasks.retain(|node, (address, _)| wanted.get(node) == Some(address));
        for (node, address) in wanted {
            tasks.entry(node).or_insert_with(|| {
                let task = report_to(shared.clone(), node, address.clone());
                (address, AbortOnDropHandle::new(tokio::spawn(task)))
            });
        }
        // The voters of the metadata group can change without a change of the view.
        if let Ok(Err(_)) = timeout(REPORT_EVERY, views.changed()).await {
            return;
        }
    }
}

/// The nodes that hold replicas of partitions or vote in the metadata group: only their clocks count. A
/// replica that is being added counts once it has caught up, so a node gets no vote just by joining.
pub(super) fn holders(view: &MetadataImage, voters: BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let settled = view.partitions().flat_map(|partition| {
        let arrived = partition.retiring.is_empty();
        let (here, leaving) = (&partition.replicas, &partition.retiring);
        if arrived { here } else { leaving }
    });
    settled.map(|place| place.node).chain(voters).collect()
}

fn addresses(view: &MetadataImage, own: NodeId) -> BTreeMap<NodeId, String> {
    view.nodes
        .values()
        .filter(|node| node.id != own && node.state != NodeState::Removed)
        .map(|node| (node.id, node.address.clone()))
        .collect()
}

async fn report_to(shared: Arc<ClusterContext>, node: NodeId, address: String) {
    let peer = shared.peers.traffic().of(node);
    let mut changes = shared.leaders.changes();
    loop {
        changes.mark_unchanged();
        if shared.meta().is_ok_and(MetadataReplica::leads) {
            shared.welcomed();
        }
        let at = shared.peers.address_of(node, &address);
        let mut client = shared.client(&at);
        let call = client.report(Request::new(report(&shared)));
        let began = Instant::now();
        match bounded(shared.call_timeout(), call).await {
            Ok(answer) => {
                peer.answered(began.elapsed());
                let itself = answer.node_id == 0 || answer.node_id == node.0;
                shared.whereabouts.reached(node, itself);
                if itself && answer.leads_metadata {
                    shared.welcomed();
                }
            }
            Err(error) => {
                peer.failed();
                shared.whereabouts.reached(node, false);
                shared.heed(Some(node), &error).await;
                tracing::debug!(to = at, %error, "report to a node failed");
            }
        }
        if let Ok(Ok(())) = timeout(REPORT_EVERY, changes.changed()).await {
            let led = u32::try_from(shared.leaders.led_count()).unwrap_or(u32::MAX);
            sleep(GATHER + GATHER_EACH.saturating_mul(led)).await;
        }
    }
}

fn report(shared: &ClusterContext) -> ReportCall {
    let identity = shared.identity.borrow();
    let led = shared.leaders.led().into_iter();
    ReportCall {
        node_id: identity.node_id,
        incarnation: identity.incarnation.clone(),
        leading: led.map(|(group, info)| to_wire(group, info)).collect(),
        full: true,
        meta_applied_index: shared.view.borrow().applied,
        wall_time_ms: Some(shared.clock.own_ms()),
        start: Some(*shared.start.borrow()),
        disk_full: *shared.store.disk_status().borrow() != DiskStatus::Healthy,
    }
}

fn to_wire(group: GroupId, info: LeaderInfo) -> PartitionReport {
    PartitionReport {
        group_id: group.0,
        leader_epoch: info.epoch,
        in_sync_node_ids: info.in_sync.into_iter().map(|node| node.0).collect(),
        log_start_offset: info.log_start_offset,
        high_watermark: info.high_watermark,
        log_bytes: info.log_bytes,
    }
}

/// The plausible leaderships of a report: those of groups that the node holds a replica of. A bounded number
/// of groups that this node does not know pass too.
pub(super) fn believed(
    machine: &MetaMachine,
    node: NodeId,
    leading: Vec<PartitionReport>,
) -> Result<Vec<(GroupId, LeaderInfo)>, WireError> {
    let mut unknown = 0;
    let mut believed = Vec::new();
    for report in leading {
        convert::check("leader epoch", report.leader_epoch)
            .map_err(|error| WireError::new(ErrorCode::InvalidRequest, error.to_string()))?;
        let (group, info) = from_wire(node, report);
        let holds = machine.holds(node, group);
        // This node may not have applied the creation of the group yet.
        unknown += usize::from(holds.is_none());
        if holds.unwrap_or(unknown <= UNKNOWN_GROUPS) {
            believed.push((group, info));
        }
    }
    Ok(believed)
}

fn from_wire(node: NodeId, report: PartitionReport) -> (GroupId, LeaderInfo) {
    let info = LeaderInfo {
        node,
        epoch: report.leader_epoch,
        in_sync: report.in_sync_node_ids.into_iter().map(NodeId).collect(),
        log_start_offset: report.log_start_offset,
        high_watermark: report.high_watermark,
        log_bytes: report.log_bytes,
    };
    (GroupId(report.group_id), info)
}
