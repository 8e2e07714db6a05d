//! Operations that a client can ask for, without a transport: each routes a request, forwards it if need be,
//! and decides. `partition/`, `cluster/` and `coordinator/` carry it out.
//!
//! An operation is a method of [`Api`], which knows the request's [`Caller`]. Encodings, streams and statuses
//! must not come in here. The one transport here is that of calls to other nodes (`forward.rs`).

mod caller;
mod cluster;
mod fetch;
mod filtered;
pub mod forward;
mod groups;
mod offsets;
mod produce;
mod producers;
mod publish;
mod topics;
pub mod trace;

use std::sync::{Arc, OnceLock};

use ropewalk_machines::meta::view::{MetadataImage, NodeImage};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::is_internal;
use ropewalk_proto::v1;

use crate::cluster::Cluster;
use crate::config::Limits;
use crate::coordinator::Coordinator;
use crate::env::Remote;
use crate::partition::{Partition, ReplicaManager, lost_majority};
use crate::peer::Peers;

pub use caller::{Caller, Listener};
pub use fetch::{AnswerRoom, Batches};
pub use filtered::{LastFilter, check_filter};
use forward::Route;

/// Maximum bytes of one request, whatever the value of `request_bytes`. The guard has checked the bound of
/// the call before that.
pub const MAX_REQUEST_BYTES: usize = 33 << 20;

/// Operations of a node, if it serves. It does not before it has joined its cluster, nor after the cluster has
/// removed it.
#[derive(Debug, Clone, Default)]
pub struct Availability(Arc<OnceLock<Serving>>);

/// Parts of a node that requests are served from, once it has joined its cluster.
#[derive(Debug)]
pub struct Serving {
    /// Metadata of the cluster.
    pub cluster: Cluster,
    /// Replicas on this node.
    pub partitions: ReplicaManager,
    /// Consumer groups whose partitions this node leads.
    pub coordinator: Coordinator,
    /// Channels to other nodes, for forwarded calls.
    pub peers: Peers,
    /// Bounds.
    pub limits: Limits,
    /// Producer ids taken from the metadata group and not yet assigned.
    pub producer_ids: producers::ProducerIds,
    /// Partitioner of `Publish`.
    pub router: publish::Router,
}

/// Operations of a node for one caller.
#[derive(Debug, Clone)]
pub struct Api<'a> {
    serving: &'a Serving,
    caller: Caller,
}

impl Availability {
    /// Begins to serve.
    pub fn begin(&self, serving: Serving) {
        assert!(
            self.0.set(serving).is_ok(),
            "a node joins one cluster, once"
        );
    }

    /// Returns the origin of a request that arrived at this listener.
    pub fn caller(&self, listener: Listener, remote: Option<&Remote>) -> Caller {
        let view = self.0.get().map(Serving::view);
        let nodes = view.iter().flat_map(|view| present(view));
        Caller::new(listener, remote, nodes.map(|node| node.address.as_str()))
    }

    /// Returns the operations for this caller.
    ///
    /// # Errors
    /// As for [`Availability::check`].
    pub fn api(&self, caller: Caller) -> Result<Api<'_>, WireError> {
        let serving = self.serving()?;
        Ok(Api { serving, caller })
    }

    /// Checks that the node serves.
    ///
    /// # Errors
    /// `NotServing`.
    pub fn check(&self) -> Result<(), WireError> {
        self.serving().map(|_| ())
    }

    fn serving(&self) -> Result<&Serving, WireError> {
        let why_not = match self.0.get() {
            None => "has not joined its cluster yet; try again, or connect to another node",
            Some(serving) if serving.cluster.is_forsaken() => {
                "has been removed from the cluster; connect to another node"
            }
            Some(serving) => return Ok(serving),
        };
        Err(WireError::new(
            ErrorCode::NotServing,
            format!("this node {why_not}"),
        ))
    }
}

impl Api<'_> {
    /// Origin of the request.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Bounds.
    pub fn limits(&self) -> &Limits {
        &self.serving.limits
    }

    /// Logs that the caller asks for a change of this resource.
    fn note_change(&self, operation: &str, resource: &str) {
        self.note_routed_change(operation, resource, Route::Anywhere);
    }

    /// The same for a call that may come from another node. That node knows the true caller and has logged the
    /// change, so this node logs another message.
    fn note_routed_change(&self, operation: &str, resource: &str, route: Route) {
        let caller = &self.caller;
        match route {
            Route::Anywhere => {
                tracing::debug!(%caller, operation, resource, "change requested");
            }
            Route::Here => {
                tracing::debug!(%caller, operation, resource, "change forwarded to this node");
            }
        }
    }

    /// Converts an error for an answer inside a stream. It names the leader if that helps the caller, by an
    /// address that the caller can reach.
    fn refusal(&self, topic: &str, partition: u32, error: WireError) -> v1::Error {
        let not_leader = error.code == ErrorCode::NotLeader;
        let mut refusal = v1::Error::from(error);
        if not_leader {
            let leader = self.serving.leader(topic, partition);
            refusal.leader = leader.and_then(|node| self.caller.listener.reach(node));
        }
        refusal
    }
}

impl Serving {
    /// Returns the metadata as this node sees it.
    pub fn view(&self) -> Arc<MetadataImage> {
        self.cluster.view().borrow().clone()
    }

    /// Returns the local replica of a partition of the topic with this name, and with this id unless it is 0.
    pub fn local(
        &self,
        topic: &str,
        topic_id: u64,
        partition: u32,
    ) -> Result<Arc<Partition>, WireError> {
        let view = self.view();
        let found = view
            .meant(topic, topic_id)?
            .partitions
            .get(partition as usize)
            .ok_or_else(|| unknown_partition(topic, partition))?;
        self.partitions.get(found.group).ok_or_else(|| {
            let led = self.cluster.leaders().get(found.group).is_some();
            match found.lost_majority(&view) {
                Some(nodes) if !led => lost_majority(&format!("{topic}/{partition}"), &nodes),
                _ => WireError::new(
                    ErrorCode::NotLeader,
                    format!(
                        "partition {topic}/{partition} has no replica on this node; ask its leader"
                    ),
                ),
            }
        })
    }

    /// Maximum bytes of one batch of a topic; 0 if the topic does not exist.
    pub fn batch_bytes(&self, topic: &str) -> usize {
        let view = self.cluster.view();
        let view = view.borrow();
        let topic = view.topics.get(topic);
        topic.map_or(0, |topic| topic.settings.max_batch_bytes as usize)
    }

    /// Returns the leader of a partition, with its internal address.
    pub fn leader(&self, topic: &str, partition: u32) -> Option<v1::NodeInfo> {
        let view = self.view();
        let group = view.partition(topic, partition)?.group;
        let leader = self.cluster.leaders().get(group)?.node;
        view.nodes.get(&leader).map(node_info)
    }
}

/// Returns the nodes of the cluster without the removed ones.
fn present(view: &MetadataImage) -> impl Iterator<Item = &NodeImage> {
    view.nodes.values().filter(|node| !is_removed(node))
}

fn is_removed(node: &NodeImage) -> bool {
    node.state == v1::NodeState::Removed
}

fn node_info(node: &NodeImage) -> v1::NodeInfo {
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

/// Refuses operations on the cluster's internal topics.
fn check_internal(topic: &str) -> Result<(), WireError> {
    if !is_internal(topic) {
        return Ok(());
    }
    Err(WireError::new(
        ErrorCode::InvalidTopicName,
        format!(
            "topic {topic:?} is internal, like all topics whose names begin with '_'; choose another name"
        ),
    ))
}

fn unknown_partition(topic: &str, partition: u32) -> WireError {
    WireError::new(
        ErrorCode::UnknownPartition,
        format!(
            "partition {topic}/{partition} does not exist; list the topic's partitions with `ropewalk partition list {topic}`"
        ),
    )
}
