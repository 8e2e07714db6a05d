//! Shared state of all partitions of one node.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ropewalk_machines::meta::MetadataImage;
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1::meta_command;
use ropewalk_raft_store::{DiskStatus, Store};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::cluster::LeaderTable;
use crate::config::Limits;
use crate::env::Clock;
use crate::metrics::Metrics;
use crate::peer::{Peers, ReplicaRouter};
use crate::unpack::Unpackers;

#[derive(Debug)]
pub(super) struct NodeContext {
    pub node_id: NodeId,
    pub clock: Arc<dyn Clock>,
    pub store: Store,
    pub peers: Peers,
    pub inbound: ReplicaRouter,
    pub leaders: LeaderTable,
    pub view: watch::Receiver<Arc<MetadataImage>>,
    pub limits: Limits,
    /// One permit per byte of produce requests in flight.
    pub produce_room: Arc<Semaphore>,
    /// Budget for unpacking batches.
    pub unpackers: Arc<Unpackers>,
    /// Queue of facts for the metadata group: reached memberships, damaged replicas and fences. A fact that
    /// does not fit is reported again.
    pub facts: mpsc::Sender<meta_command::Kind>,
    /// Metrics of all partitions.
    pub metrics: Arc<Metrics>,
    /// Notified when a replica here is found damaged.
    pub damage_found: Notify,
    /// True once the node is stopping and must no longer lead.
    pub leaving: AtomicBool,
}

impl NodeContext {
    /// Returns true if the disk accepts writes.
    pub(super) fn is_writable(&self) -> bool {
        matches!(*self.store.disk_status().borrow(), DiskStatus::Healthy)
    }
}
