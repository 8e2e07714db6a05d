//! The cluster's metadata as clients see it: the metadata group's view, joined with the last reports of the
//! leaders.

use std::collections::BTreeSet;

use ropewalk_machines::meta::view::{ClusterView, NodeView, PartitionView, TopicView};
use ropewalk_proto::v1;

use crate::service::Serving;

pub(super) fn metadata(serving: &Serving, request: v1::MetadataRequest) -> v1::MetadataResponse {
    let view = serving.cluster.view().borrow().clone();
    v1::MetadataResponse {
        cluster_id: view.cluster_id.clone(),
        nodes: present(&view).map(node_info).collect(),
        topics: topics(serving, &request.topics),
        controller_node_id: serving.cluster.controller().map_or(0, |node| node.0),
    }
}

/// Returns the named topics that exist, each once; without names, all topics.
pub(super) fn topics(serving: &Serving, names: &[String]) -> Vec<v1::TopicInfo> {
    let view = serving.cluster.view().borrow().clone();
    if names.is_empty() {
        return view
            .topics
            .values()
            .map(|topic| topic_info(serving, topic))
            .collect();
    }
    let names: BTreeSet<&String> = names.iter().collect();
    let found = names.into_iter().filter_map(|name| view.topics.get(name));
    found.map(|topic| topic_info(serving, topic)).collect()
}

pub(super) fn topic_info(serving: &Serving, topic: &TopicView) -> v1::TopicInfo {
    v1::TopicInfo {
        name: topic.name.clone(),
        topic_id: topic.id.0,
        partitions: topic
            .partitions
            .iter()
            .map(|one| partition_info(serving, one))
            .collect(),
        settings: Some(topic.settings),
        ring_version: topic.ring_version,
        ring_partitions: topic.ring_partitions,
        growths: topic.growths.clone(),
    }
}

fn partition_info(serving: &Serving, partition: &PartitionView) -> v1::PartitionInfo {
    let told = serving.cluster.leaders().get(partition.group);
    let alive = told
        .as_ref()
        .filter(|told| serving.cluster.alive(told.node));
    v1::PartitionInfo {
        partition: partition.partition,
        leader_node_id: alive.map_or(0, |told| told.node.0),
        leader_epoch: told.as_ref().map_or(0, |told| told.epoch),
        replica_node_ids: partition
            .replicas
            .iter()
            .map(|place| place.node.0)
            .collect(),
        in_sync_node_ids: alive
            .map(|told| told.in_sync.iter().map(|node| node.0).collect())
            .unwrap_or_default(),
        log_start_offset: told.as_ref().map_or(0, |told| told.log_start_offset),
        high_watermark: told.as_ref().map_or(0, |told| told.high_watermark),
        log_bytes: told.as_ref().map_or(0, |told| told.log_bytes),
    }
}

pub(super) fn cluster_status(serving: &Serving) -> v1::ClusterStatusResponse {
    let (view, metadata_index) = serving.cluster.view_as_of();
    let controller = serving.cluster.controller();
    let nodes = present(&view)
        .map(|node| {
            let partitions = view.topics.values().flat_map(|topic| &topic.partitions);
            let leads = |one: &&PartitionView| {
                serving
                    .cluster
                    .leaders()
                    .get(one.group)
                    .is_some_and(|told| told.node == node.id)
            };
            let holds = |one: &&PartitionView| one.replicas.iter().any(|at| at.node == node.id);
            let alive = serving.cluster.alive(node.id);
            let leaders = if alive {
                partitions.clone().filter(leads).count()
            } else {
                0
            };
            v1::NodeStatus {
                info: Some(node_info(node)),
                alive,
                leaders: leaders as u32,
                replicas: partitions.filter(holds).count() as u32,
                controller: controller == Some(node.id),
            }
        })
        .collect();
    let removed = view.nodes.values().filter(|node| is_removed(node));
    let voters = serving.cluster.metadata_voters();
    v1::ClusterStatusResponse {
        cluster_id: view.cluster_id.clone(),
        nodes,
        metadata_index,
        removed_node_ids: removed.map(|node| node.id.0).collect(),
        metadata_voter_node_ids: voters.iter().map(|node| node.0).collect(),
    }
}

fn present(view: &ClusterView) -> impl Iterator<Item = &NodeView> {
    view.nodes.values().filter(|node| !is_removed(node))
}

fn is_removed(node: &NodeView) -> bool {
    node.state == v1::NodeState::Removed
}

fn node_info(node: &NodeView) -> v1::NodeInfo {
    v1::NodeInfo {
        node_id: node.id.0,
        address: node.address.clone(),
        http: node.http.clone(),
        rack: node.rack.clone(),
        state: node.state as i32,
        version: node.version.clone(),
        external: node.external.clone(),
    }
}
