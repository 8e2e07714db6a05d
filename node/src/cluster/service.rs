//! The service for other nodes. It answers `Hello` and `Form` from the first moment on, the other calls once
//! the node is in a cluster.

use std::sync::Arc;

use ropewalk_machines::meta::machine::{address_of, state_of};
use ropewalk_machines::meta::{invalid, nodes};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1::cluster_server;
use ropewalk_proto::v1::{
    FormAnswer, FormCall, FoundCluster, FoundingNode, HelloAnswer, HelloCall, JoinAnswer, JoinCall,
    NodeState, ProposeMetaAnswer, ProposeMetaCall, RegisterNode, ReportAnswer, ReportCall,
    meta_command, meta_reply,
};
use tonic::{Request, Response, Status};

use super::context::ClusterContext;
use super::propose::{propose, propose_here};
use super::{heartbeat, identity, naming};

/// The `ropewalk.v1.Cluster` service of a node.
#[derive(Debug, Clone)]
pub struct ClusterService {
    pub(super) shared: Arc<ClusterContext>,
}

#[tonic::async_trait]
impl cluster_server::Cluster for ClusterService {
    async fn hello(&self, request: Request<HelloCall>) -> Result<Response<HelloAnswer>, Status> {
        let call = request.into_inner();
        let known_address = self.known_address(&call).unwrap_or_default();
        if !known_address.is_empty() && known_address != call.address {
            self.shared.whereabouts.called_from(&call.address);
        }
        Ok(Response::new(HelloAnswer {
            known_address,
            ..self.shared.introduction()
        }))
    }

    async fn form(&self, request: Request<FormCall>) -> Result<Response<FormAnswer>, Status> {
        let FormCall {
            cluster_id,
            members,
        } = request.into_inner();
        let members = members.into_iter().map(|member| FoundingNode {
            node_id: member.node_id,
            address: member.address,
            incarnation: member.incarnation,
        });
        let plan = FoundCluster {
            cluster_id,
            nodes: members.collect(),
        };
        naming::check_founding(&plan)?;
        let FoundCluster { cluster_id, nodes } = plan;
        if let Some(cluster) = &self.shared.config.member_of {
            // A plan of its own cluster would be on its disk, had it not lost its data.
            return Err(Status::from(invalid(format!(
                "node belongs to cluster {cluster} and cannot found another"
            ))));
        }
        let own = self.shared.identity.borrow().incarnation.clone();
        let place = identity::founding(&own, &cluster_id, &nodes);
        let place = place.filter(identity::placed).ok_or_else(|| {
            invalid(
                "node has another data directory than the founding plan names; check the addresses",
            )
        })?;
        self.shared.take_place(place).await?;
        Ok(Response::new(FormAnswer {}))
    }

    async fn join(&self, request: Request<JoinCall>) -> Result<Response<JoinAnswer>, Status> {
        let call = request.into_inner();
        self.shared.meta()?;
        let cluster_id = self.shared.identity().cluster_id;
        self.check_cluster(&call.cluster_id, &cluster_id)?;
        let node = RegisterNode {
            incarnation: call.incarnation,
            address: call.address,
            http: call.http,
            rack: call.rack,
            version: call.version,
            command_version: call.command_version,
            external: call.external,
            in_place_of: None, // set by the leader of the metadata group
            start: call.start,
        };
        naming::check_registration(&node)?;
        let command = meta_command::Kind::RegisterNode(node);
        let within = self.shared.call_timeout();
        match propose(&self.shared, command, within).await? {
            Some(meta_reply::Kind::NodeRegistered(node)) => Ok(Response::new(JoinAnswer {
                cluster_id,
                node_id: node.node_id,
                meta_replica_id: node.meta_replica_id,
            })),
            _ => Err(Status::internal("metadata group assigned no node id")),
        }
    }

    async fn propose_meta(
        &self,
        request: Request<ProposeMetaCall>,
    ) -> Result<Response<ProposeMetaAnswer>, Status> {
        let call = request.into_inner();
        let meta = self.shared.meta()?;
        let cluster_id = self.shared.identity().cluster_id;
        self.check_cluster(&call.cluster_id, &cluster_id)?;
        let command = call.command.unwrap_or_default();
        if command.kind.is_none() {
            // An entry that some nodes cannot apply would stop their metadata replicas.
            return Err(Status::from(WireError::new(
                ErrorCode::UnsupportedVersion,
                "metadata group's leader is older than this command; upgrade that node",
            )));
        }
        let answer = propose_here(&self.shared, meta, command).await?;
        Ok(Response::new(answer))
    }

    async fn report(&self, request: Request<ReportCall>) -> Result<Response<ReportAnswer>, Status> {
        let call = request.into_inner();
        let node = NodeId(call.node_id);
        let meta = self.shared.meta()?;
        let known = meta.view.machine().node(node).cloned();
        let known = known.filter(|known| known.incarnation == call.incarnation);
        let Some(known) = known else {
            return Err(Status::from(WireError::new(
                ErrorCode::UnknownNode,
                format!("node {node} is not known to this cluster under its incarnation"),
            )));
        };
        let refusal = match state_of(&known) {
            NodeState::Removed => Some(nodes::removed(node)),
            _ if ropewalk_machines::meta::starts::check(known.start, call.start) => None,
            _ => Some(nodes::started_twice(node, address_of(&known))),
        };
        if let Some(refusal) = refusal {
            // Other nodes accept this refusal only from the leader of the metadata group, so no other node
            // sends it.
            return Err(Status::from(match meta.leads() {
                true => refusal,
                false => WireError::new(ErrorCode::NotServing, refusal.message),
            }));
        }
        // A start that is not registered yet may be a copy's. Its report must not end the leaderships of
        // another start.
        let full = call.full && (known.start.is_none() || known.start == call.start);
        let leading = heartbeat::believed(&meta.view.machine(), node, call.leading)?;
        self.shared.leaders.heard(node, leading, full);
        self.shared.leaders.heard_of_disk(node, call.disk_full);
        self.shared.clock.heard(node, call.wall_time_ms);
        Ok(Response::new(ReportAnswer {
            node_id: self.shared.node_id().0,
            leads_metadata: meta.leads(),
        }))
    }
}

impl ClusterService {
    /// The address of the caller in the metadata.
    fn known_address(&self, call: &HelloCall) -> Option<String> {
        let machine = self.shared.meta().ok()?.view.machine();
        let mut nodes = machine.nodes();
        let known = nodes.find(|(_, node)| node.incarnation == call.incarnation);
        known.map(|(_, node)| address_of(node).to_owned())
    }

    /// Refuses a call meant for another cluster. A node of that cluster may find this node at an address it
    /// once knew.
    fn check_cluster(&self, called: &str, own: &str) -> Result<(), WireError> {
        if called.is_empty() || called == own {
            return Ok(());
        }
        Err(invalid(format!(
            "node belongs to cluster {own}, not to {called}; check the addresses"
        )))
    }
}
