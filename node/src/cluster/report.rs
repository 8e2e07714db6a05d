//! What this node leads, told to every other node: at once when it changes, and each second, which
//! is also how the others know that it lives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ropewalk_proto::ids::{GroupId, NodeId};
use ropewalk_proto::v1::{NodeState, PartitionReport, ReportCall};
use ropewalk_raft_store::DiskStatus;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::Request;

use super::formation::bounded;
use super::leaders::LeaderInfo;
use super::shared::Shared;
use super::view::ClusterView;

/// The longest silence between two reports.
const EVERY: Duration = Duration::from_secs(1);
/// How long a change waits for others to go along with it.
const GATHER: Duration = Duration::from_millis(10);

/// Keeps one task for each other node of the cluster.
pub(super) async fn report_to_all(shared: Arc<Shared>) {
    let mut views = shared.view.subscribe();
    let mut tasks: BTreeMap<NodeId, (String, AbortOnDropHandle<()>)> = BTreeMap::new();
    loop {
        let view = views.borrow_and_update().clone();
        let wanted = addresses(&view, shared.node_id());
        if view.nodes.contains_key(&shared.node_id()) {
            shared.clock.set_others(wanted.keys().copied());
        }
        tasks.retain(|node, (address, _)| wanted.get(node) == Some(address));
        for (node, address) in wanted {
            tasks.entry(node).or_insert_with(|| {
                let task = report_to(shared.clone(), node, address.clone());
                (address, AbortOnDropHandle::new(tokio::spawn(task)))
            });
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}

fn addresses(view: &ClusterView, own: NodeId) -> BTreeMap<NodeId, String> {
    view.nodes
        .values()
        .filter(|node| node.id != own && node.state != NodeState::Removed)
        .map(|node| (node.id, node.address.clone()))
        .collect()
}

async fn report_to(shared: Arc<Shared>, node: NodeId, address: String) {
    let peer = shared.peers.traffic().of(node);
    let mut changes = shared.leaders.changes();
    loop {
        changes.mark_unchanged();
        let mut client = shared.client(&address);
        let call = client.report(Request::new(report(&shared)));
        let began = Instant::now();
        match bounded(shared.call_timeout(), call).await {
            Ok(_) => peer.answered(began.elapsed()),
            Err(error) => {
                peer.failed();
                shared.heed(&error);
                tracing::debug!(to = address, %error, "a report did not arrive");
            }
        }
        if let Ok(Ok(())) = timeout(EVERY, changes.changed()).await {
            sleep(GATHER).await;
        }
    }
}

fn report(shared: &Shared) -> ReportCall {
    let identity = shared.identity.borrow();
    let led = shared.leaders.led().into_iter();
    ReportCall {
        node_id: identity.node_id,
        incarnation: identity.incarnation.clone(),
        leading: led.map(|(group, info)| to_wire(group, info)).collect(),
        full: true,
        meta_applied_index: shared.view.borrow().applied,
        wall_time_ms: Some(shared.clock.own_ms()),
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
    }
}

/// What a report says, for the table of leaders.
pub(super) fn from_wire(node: NodeId, report: PartitionReport) -> (GroupId, LeaderInfo) {
    let info = LeaderInfo {
        node,
        epoch: report.leader_epoch,
        in_sync: report.in_sync_node_ids.into_iter().map(NodeId).collect(),
        log_start_offset: report.log_start_offset,
        high_watermark: report.high_watermark,
    };
    (GroupId(report.group_id), info)
}
