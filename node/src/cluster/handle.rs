//! The handle by which the rest of the node sees the cluster.

use std::sync::Arc;

use parking_lot::RwLock;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1::{meta_command, meta_reply};
use tokio::sync::watch;

use super::leaders::LeaderTable;
use super::view::ClusterView;
use crate::config::Limits;

/// The cluster, as this node sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node_id: RwLock<NodeId>,
    view: watch::Sender<Arc<ClusterView>>,
    leaders: LeaderTable,
}

impl Cluster {
    /// A node that is in no cluster yet.
    pub fn new(limits: &Limits) -> Cluster {
        Cluster {
            inner: Arc::new(Inner {
                node_id: RwLock::default(),
                view: watch::Sender::default(),
                leaders: LeaderTable::new(limits.node_dead_after_ms),
            }),
        }
    }

    /// This node's id; 0 until it is in a cluster.
    pub fn node_id(&self) -> NodeId {
        *self.inner.node_id.read()
    }

    /// The cluster's metadata, as of the newest entry applied here.
    pub fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.inner.view.subscribe()
    }

    /// Who leads which group.
    pub fn leaders(&self) -> &LeaderTable {
        &self.inner.leaders
    }

    /// Whether a node was heard from lately.
    pub fn alive(&self, node: NodeId) -> bool {
        self.inner.leaders.alive(node)
    }

    /// The node that leads the metadata group, if one is known.
    pub fn controller(&self) -> Option<NodeId> {
        None
    }

    /// Has the metadata group apply a command, wherever it is led, and returns its answer: the
    /// reply's kind, or none where there is nothing to say. What the group refuses comes back as
    /// the error it gave.
    pub async fn propose(
        &self,
        _command: meta_command::Kind,
    ) -> Result<Option<meta_reply::Kind>, WireError> {
        Err(WireError::new(
            ErrorCode::NotServing,
            "this node is in no cluster yet; try again shortly",
        ))
    }
}
