//! Test fixture: partitions with several replicas in one process, on memory disks, over loopback.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ropewalk_machines::meta::MetadataImage;
use ropewalk_machines::meta::view::{NodeImage, PartitionImage, ReplicaPlacement, TopicImage};
use ropewalk_proto::command::UNDERSTOOD_VERSION;
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId, TopicId};
use ropewalk_proto::v1::{NodeState, TopicSettings, meta_command};
use ropewalk_raft_store::disk::MemoryDisk;
use ropewalk_raft_store::{Store, StoreOptions};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::node_context::NodeContext;
use super::*;
use crate::cluster::LeaderTable;
use crate::config::Limits;
use crate::env::{Clock, ConnectionBounds, Incoming, Net, TcpNet};
use crate::metrics::Metrics;
use crate::peer::{self, Peers, ReplicaRouter};
use crate::unpack::Unpackers;

pub(super) const GROUP: GroupId = GroupId(7);
pub(super) const TOPIC: &str = "flights";
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub(super) struct TestClock(pub(super) AtomicI64);

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) struct Node {
    pub(super) partitions: ReplicaManager,
    pub(super) store: Store,
    pub(super) leaders: LeaderTable,
    pub(super) facts: mpsc::Receiver<meta_command::Kind>,
    pub(super) disk: Arc<MemoryDisk>,
    pub(super) serving: CancellationToken,
}

pub(super) struct TestCluster {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) view: watch::Sender<Arc<MetadataImage>>,
    pub(super) clock: Arc<TestClock>,
    tail_bytes: usize,
}

pub(super) fn limits() -> Limits {
    Limits {
        heartbeat_ms: 50,
        election_timeout_ms: 500,
        reconcile_interval_ms: 50,
        retention_interval_ms: 50,
        ..Limits::default()
    }
}

pub(super) fn place(node: u64) -> ReplicaPlacement {
    ReplicaPlacement {
        replica: ReplicaId(node * 10),
        node: NodeId(node),
    }
}

pub(super) fn settings() -> TopicSettings {
    TopicSettings {
        replicas: 3,
        retention_ms: -1,
        retention_bytes: -1,
        segment_bytes: 64 << 20,
        max_batch_bytes: 1 << 20,
        ..Default::default()
    }
}

impl TestCluster {
    /// Starts `count` nodes; the first three hold the partition.
    pub(super) async fn start(count: u64, settings: TopicSettings) -> TestCluster {
        TestCluster::start_with(count, settings, StoreOptions::default().tail_bytes).await
    }

    /// Starts likewise, with this much of the logs in memory; the rest is read from the disks.
    pub(super) async fn start_with(
        count: u64,
        settings: TopicSettings,
        tail_bytes: usize,
    ) -> TestCluster {
        let mut cluster = TestCluster {
            nodes: BTreeMap::new(),
            view: watch::Sender::default(),
            clock: Arc::default(),
            tail_bytes,
        };
        let mut view = MetadataImage {
            applied: 1,
            cluster_id: "test".into(),
            understood: UNDERSTOOD_VERSION,
            next_replica: ReplicaId(1_000),
            ..Default::default()
        };
        let mut listeners = Vec::new();
        for node in (1..=count).map(NodeId) {
            let listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
            let address = listener.local_address();
            view.nodes.insert(node, node_view(node, address));
            listeners.push((node, listener));
        }
        let founding: Vec<ReplicaPlacement> = (1..=count.min(3)).map(place).collect();
        let partition = PartitionImage {
            partition: 0,
            group: GROUP,
            replicas: founding.clone(),
            retiring: Vec::new(),
            damaged: Vec::new(),
            founding,
        };
        let topic = TopicImage {
            name: TOPIC.into(),
            id: TopicId(1),
            settings,
            ring_version: 1,
            ring_partitions: 1,
            growths: Vec::new(),
            partitions: vec![partition],
        };
        view.topics.insert(TOPIC.into(), topic);
        cluster.view.send_replace(Arc::new(view));
        for (node, listener) in listeners {
            let disk = Arc::new(MemoryDisk::new());
            cluster.start_node(node, listener, disk).await;
        }
        cluster
    }

    pub(super) async fn start_node(
        &mut self,
        node: NodeId,
        listener: Box<dyn crate::env::Listener>,
        disk: Arc<MemoryDisk>,
    ) {
        let limits = limits();
        let options = StoreOptions {
            tail_bytes: self.tail_bytes,
            ..StoreOptions::default()
        };
        let store = Store::open(disk.clone(), options).await.unwrap();
        let inbound = ReplicaRouter::new(&limits);
        let peers = Peers::new(Arc::new(TcpNet), &limits);
        peers.found_at(self.addresses());
        let leaders = LeaderTable::new(limits.node_dead_after_ms);
        let (sent, facts) = mpsc::channel(8);
        let host = NodeContext {
            node_id: node,
            clock: self.clock.clone(),
            store: store.clone(),
            peers,
            inbound: inbound.clone(),
            leaders: leaders.clone(),
            view: self.view.subscribe(),
            produce_room: Arc::new(Semaphore::new(limits.produce_inflight_bytes)),
            unpackers: Arc::new(Unpackers::new(&limits)),
            metrics: Metrics::new(&limits),
            limits,
            facts: sent,
            damage_found: Default::default(),
            leaving: Default::default(),
        };
        let serving = CancellationToken::new();
        let stop = serving.clone();
        let service = inbound.service();
        tokio::spawn(async move {
            let server = peer::server(&Limits::default()).add_service(service);
            let incoming =
                Incoming::new(listener, ConnectionBounds::of(64), CancellationToken::new())
                    .into_stream();
            stop.run_until_cancelled(server.serve_with_incoming(incoming))
                .await
        });
        let partitions = ReplicaManager::on(Arc::new(host));
        self.nodes.insert(
            node,
            Node {
                partitions,
                store,
                leaders,
                facts,
                disk,
                serving,
            },
        );
    }

    /// Stops a node without a transfer of leadership, and takes it out of this cluster.
    pub(super) async fn kill(&mut self, node: NodeId) -> Node {
        let node = self.nodes.remove(&node).unwrap();
        node.serving.cancel();
        node.partitions.shutdown().await;
        node.store.close().await;
        node
    }

    /// Stops a node, lets `meanwhile` change its disk, and starts it again at another address.
    pub(super) async fn restart(&mut self, id: NodeId, meanwhile: impl FnOnce(&MemoryDisk)) {
        let disk = self.kill(id).await.disk;
        meanwhile(&disk);
        self.come_back(id, disk).await;
    }

    /// Starts a killed node at another address.
    pub(super) async fn come_back(&mut self, id: NodeId, disk: Arc<MemoryDisk>) {
        let listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        self.change(|view| drop(view.nodes.insert(id, node_view(id, address))));
        let addresses = self.addresses();
        for partition in self.nodes.values().flat_map(|node| node.partitions.all()) {
            partition.host.peers.found_at(addresses.clone());
        }
        self.start_node(id, listener, disk).await;
    }

    fn addresses(&self) -> BTreeMap<NodeId, String> {
        let view = self.view.borrow();
        let nodes = view.nodes.values();
        nodes.map(|node| (node.id, node.address.clone())).collect()
    }

    pub(super) fn replica(&self, node: u64) -> Arc<Partition> {
        self.nodes[&NodeId(node)].partitions.get(GROUP).unwrap()
    }

    /// Waits until one of the nodes leads and reports it.
    pub(super) async fn leader(&self) -> Arc<Partition> {
        let mut found = None;
        eventually("a leader", || {
            found = self.nodes.iter().find_map(|(id, node)| {
                let info = node.leaders.get(GROUP).filter(|info| info.node == *id)?;
                let partition = node.partitions.get(GROUP)?;
                (partition.leading_epoch() == Ok(info.epoch)).then_some(partition)
            });
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut MetadataImage)) {
        self.view.send_modify(|view| {
            let mut changed = MetadataImage::clone(view);
            changed.applied += 1;
            change(&mut changed);
            *view = Arc::new(changed);
        });
    }

    pub(super) fn change_partition(&self, change: impl FnOnce(&mut PartitionImage)) {
        self.change(|view| change(&mut view.topics.get_mut(TOPIC).unwrap().partitions[0]));
    }

    pub(super) async fn stop(self) {
        for node in self.nodes.into_values() {
            node.serving.cancel();
            node.partitions.shutdown().await;
            node.store.close().await;
        }
    }
}

pub(super) fn node_view(id: NodeId, address: String) -> NodeImage {
    NodeImage {
        id,
        address,
        http: String::new(),
        external: String::new(),
        rack: String::new(),
        version: String::new(),
        state: NodeState::Active,
        meta_replica: ReplicaId(id.0),
    }
}

pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, held)
        .await
        .unwrap_or_else(|_| panic!("no {what} in time"));
}
