//! The cluster: its metadata as clients see it, its nodes, and the places of its partitions. Metadata is the
//! metadata group's view, joined with the last reports of the leaders.

use ropewalk_machines::meta::view::PartitionImage;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1;
use ropewalk_proto::v1::meta_command::Kind;

use super::forward::{OtherNode, Route, answer, marked};
use super::topics::topics;
use super::{Api, is_removed, node_info, present, unknown_partition};

impl Api<'_> {
    /// Describes topics, and the nodes that the caller can reach.
    pub fn metadata(&self, request: &v1::MetadataRequest) -> v1::MetadataResponse {
        let serving = self.serving;
        let view = serving.view();
        let nodes = present(&view).map(node_info);
        let listener = self.caller.listener;
        v1::MetadataResponse {
            cluster_id: view.cluster_id.clone(),
            nodes: nodes.filter_map(|node| listener.reach(node)).collect(),
            topics: topics(serving, &request.topics),
            controller_node_id: serving.cluster.controller().map_or(0, |node| node.0),
        }
    }

    /// Describes the nodes, and their roles.
    pub fn cluster_status(&self) -> v1::ClusterStatusResponse {
        let serving = self.serving;
        let (view, metadata_index) = serving.cluster.view_as_of();
        let controller = serving.cluster.controller();
        let nodes = present(&view)
            .map(|node| {
                let partitions = view.topics.values().flat_map(|topic| &topic.partitions);
                let leads = |one: &&PartitionImage| {
                    serving
                        .cluster
                        .leaders()
                        .get(one.group)
                        .is_some_and(|told| told.node == node.id)
                };
                let holds =
                    |one: &&PartitionImage| one.replicas.iter().any(|at| at.node == node.id);
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

    /// Moves the replicas of a partition to these nodes.
    pub async fn move_partition(
        &self,
        request: v1::MovePartitionRequest,
    ) -> Result<v1::MovePartitionResponse, WireError> {
        self.note_change("MovePartition", &request.topic);
        let view = self.serving.view();
        let partition = view
            .partition(&request.topic, request.partition)
            .ok_or_else(|| unknown_partition(&request.topic, request.partition))?;
        let kind = Kind::MoveReplicas(v1::MoveReplicas {
            group_id: partition.group.0,
            node_ids: request.replica_node_ids,
        });
        self.serving.cluster.propose(kind).await?;
        Ok(v1::MovePartitionResponse {})
    }

    /// Changes the state that the operator wants for a node.
    pub async fn set_node_state(
        &self,
        request: v1::SetNodeStateRequest,
    ) -> Result<v1::SetNodeStateResponse, WireError> {
        self.note_change("SetNodeState", &request.node_id.to_string());
        let kind = Kind::SetNodeState(v1::SetNodeState {
            node_id: request.node_id,
            state: request.state,
        });
        self.serving.cluster.propose(kind).await?;
        Ok(v1::SetNodeStateResponse {})
    }

    /// Transfers leadership. Only the leader can do so; any other node forwards the call to it, once.
    pub async fn transfer_leader(
        &self,
        request: v1::TransferLeaderRequest,
        route: Route,
    ) -> Result<v1::TransferLeaderResponse, WireError> {
        self.note_routed_change("TransferLeader", &request.topic, route);
        let serving = self.serving;
        let view = serving.view();
        let partition = view
            .partition(&request.topic, request.partition)
            .ok_or_else(|| unknown_partition(&request.topic, request.partition))?;
        let leader = serving.cluster.leaders().get(partition.group);
        let leader = leader.map(|told| told.node);
        match leader {
            Some(leader) if leader != serving.cluster.node_id() && route == Route::Anywhere => {
                let node = view.nodes.get(&leader).ok_or_else(|| no_leader(&request))?;
                let mut other = OtherNode::new(serving.peers.channel(&node.address));
                answer(other.transfer_leader(marked(request)).await)
            }
            Some(_) => {
                let local = serving.local(&request.topic, 0, request.partition)?;
                local.transfer_leader(NodeId(request.to_node_id)).await?;
                Ok(v1::TransferLeaderResponse {})
            }
            None => Err(no_leader(&request)),
        }
    }
}

fn no_leader(request: &v1::TransferLeaderRequest) -> WireError {
    WireError::new(
        ErrorCode::NoLeader,
        format!(
            "partition {}/{} has no known leader; try again in a second",
            request.topic, request.partition
        ),
    )
}
