//! What all partitions of one node share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1::meta_command;
use ropewalk_raft_store::{DiskStatus, Store};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::cluster::{ClusterView, LeaderTable};
use crate::config::Limits;
use crate::env::Clock;
use crate::metrics::Metrics;
use crate::peer::{Inbound, Peers};
use crate::unpack::Unpackers;

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
    /// Budget for unpacking batches.
    pub unpackers: Arc<Unpackers>,
    /// What the metadata group is to know of replicas here, on its way there: memberships that came
    /// to what is wished, replicas that are damaged. What finds no room is told again.
    pub facts: mpsc::Sender<meta_command::Kind>,
    /// What is counted of all of them.
    pub metrics: Arc<Metrics>,
    /// Rung when a replica here was found damaged.
    pub damage_found: Notify,
    /// The node is stopping: it leads nothing any more.
    pub leaving: AtomicBool,
}

impl Host {
    /// Whether the disk takes writes.
    pub(super) fn is_writable(&self) -> bool {
        matches!(*self.store.disk_status().borrow(), DiskStatus::Healthy)
    }
}
