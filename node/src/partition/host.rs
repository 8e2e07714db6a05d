//! What all partitions of one node share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1::SettleReplicas;
use ropewalk_raft_store::{DiskStatus, Store};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::cluster::{ClusterView, LeaderTable};
use crate::config::Limits;
use crate::env::Clock;
use crate::peer::{Inbound, Peers};

#[derive(Debug)]
pub(super) struct Host {
    pub node_id: NodeId,
    pub clock: Arc<dyn Clock>,
    pub store: Store,
    pub peers: Peers,
    pub inbound: Inbound,
    pub leaders: LeaderTable,
    pub view: watch::Receiver<Arc<ClusterView>>,
    pub limits: Limits,
    /// One permit a byte of produce requests under way.
    pub produce_room: Arc<Semaphore>,
    /// Memberships that came to what the metadata wishes, on their way to the metadata group.
    pub settled: mpsc::Sender<SettleReplicas>,
    /// The node is stopping: it leads nothing any more.
    pub leaving: AtomicBool,
}

impl Host {
    /// Whether the disk takes writes.
    pub(super) fn is_writable(&self) -> bool {
        matches!(*self.store.disk_status().borrow(), DiskStatus::Healthy)
    }
}
