//! Nodes as an operator sees them.

/// State of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// Id of the cluster.
    pub cluster_id: String,
    /// Nodes, in no particular order.
    pub nodes: Vec<NodeStatus>,
    /// Position in the metadata log that the answering node has reached. Of two answers, the one with the
    /// higher index is newer.
    pub metadata_index: u64,
    /// Nodes that were removed permanently. A node in neither list is not known to the answering node yet.
    pub removed_node_ids: Vec<u64>,
    /// Nodes that vote in the metadata group. They include a lost node until another one replaces it.
    pub metadata_voter_node_ids: Vec<u64>,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Id of the node.
    pub node_id: u64,
    /// Address for clients, `host:port`.
    pub address: String,
    /// Address of metrics and health, `host:port`; none if they are off.
    pub http: Option<String>,
    /// Rack of the node, if it has one.
    pub rack: Option<String>,
    /// Address for clients outside the cluster's network, `host:port`, if there is one.
    pub external: Option<String>,
    /// Desired state.
    pub state: NodeState,
    /// Version of the node's software.
    pub version: String,
    /// True if the node was heard of within the liveness bound.
    pub alive: bool,
    /// Number of partitions that the node leads.
    pub leaders: u32,
    /// Number of replicas that the node holds.
    pub replicas: u32,
    /// True for the node that leads the metadata group.
    pub controller: bool,
}

/// Desired state of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NodeState {
    /// A state that this client does not know. The cluster refuses it in a request.
    #[default]
    Unknown,
    /// Leads partitions and holds replicas.
    Active,
    /// Leads nothing.
    Draining,
    /// Its replicas are moving to other nodes.
    Decommissioning,
    /// Permanently out of the cluster.
    Removed,
}
