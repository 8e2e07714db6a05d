//! Whole clusters in one process: real tasks, loopback sockets, disks in memory.

mod identity;
mod leaving;
mod registration;
mod rejoin;

use std::sync::Arc;
use std::time::Duration;

use ropewalk_proto::error::{ErrorCode, Retry};
use ropewalk_proto::ids::{GroupId, NodeId};
use ropewalk_proto::v1::{CreateTopic, NodeState, TopicSettings, meta_command, meta_reply};
use ropewalk_raft_store::disk::MemoryDisk;
use ropewalk_raft_store::{Store, StoreOptions};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Cluster, LeaderInfo};
use crate::config::{Config, Limits};
use crate::env::{ConnectionBounds, Env, Incoming, Listener, Net, SystemClock, TcpNet};
use crate::peer::{self, Peers, ReplicaRouter};

const PATIENCE: Duration = Duration::from_secs(30);

struct TestNode {
    config: Config,
    disk: Arc<MemoryDisk>,
    cluster: Cluster,
    store: Store,
    inbound: ReplicaRouter,
    serving: CancellationToken,
    server: JoinHandle<()>,
}

fn limits() -> Limits {
    Limits {
        heartbeat_ms: 50,
        election_timeout_ms: 300,
        node_dead_after_ms: 2_500,
        reconcile_interval_ms: 20,
        ..Limits::default()
    }
}

async fn listen(address: &str) -> Box<dyn Listener> {
    TcpNet.listen(address).await.unwrap()
}

fn config(address: &str, seeds: &[String]) -> Config {
    Config {
        advertise: address.to_owned(),
        listen: address.to_owned(),
        seeds: seeds.to_vec(),
        limits: limits(),
        ..Config::default()
    }
}

impl TestNode {
    /// Serves the node without starting it.
    async fn serve(config: Config, listener: Box<dyn Listener>, disk: Arc<MemoryDisk>) -> TestNode {
        let env = Env {
            clock: Arc::new(SystemClock),
            disk: disk.clone(),
            net: Arc::new(TcpNet),
            seed: 7,
            log_lines_lost: || 0,
        };
        let store = Store::open(disk.clone(), StoreOptions::default())
            .await
            .unwrap();
        let peers = Peers::new(env.net.clone(), &config.limits);
        let inbound = ReplicaRouter::new(&config.limits);
        let cluster = Cluster::new(&config, &env, &store, &peers, &inbound)
            .await
            .unwrap();
        let serving = CancellationToken::new();
        let served = peer::server(&config.limits)
            .add_service(inbound.service())
            .add_service(cluster.service())
            .serve_with_incoming_shutdown(
                Incoming::new(listener, ConnectionBounds::of(64), Default::default()).into_stream(),
                serving.clone().cancelled_owned(),
            );
        let server = tokio::spawn(async move { served.await.unwrap() });
        TestNode {
            config,
            disk,
            cluster,
            store,
            inbound,
            serving,
            server,
        }
    }

    /// Starts one node. The other nodes of its cluster may be in any state.
    async fn start(address: &str, seeds: &[String], disk: Arc<MemoryDisk>) -> TestNode {
        let listener = listen(address).await;
        let address = listener.local_address();
        let node = TestNode::serve(config(&address, seeds), listener, disk).await;
        node.started().await;
        node
    }

    async fn started(&self) {
        let started = tokio::time::timeout(PATIENCE, self.cluster.start());
        started
            .await
            .expect("no place in a cluster in time")
            .unwrap();
    }

    fn address(&self) -> &str {
        &self.config.advertise
    }

    fn id(&self) -> NodeId {
        self.cluster.node_id()
    }

    fn cluster_id(&self) -> String {
        self.cluster.view().borrow().cluster_id.clone()
    }

    /// Stops the node and returns its configuration and disk.
    async fn stop(self) -> (Config, Arc<MemoryDisk>) {
        self.cluster.shutdown().await;
        self.inbound.close();
        self.serving.cancel();
        // Connections outlive a server that is not awaited, and would answer for the next one.
        let served = tokio::time::timeout(PATIENCE, self.server).await;
        served.expect("connections stay open").unwrap();
        self.store.close().await;
        (self.config, self.disk)
    }

    async fn sees(
        &self,
        what: &str,
        holds: impl FnMut(&Arc<ropewalk_machines::meta::MetadataImage>) -> bool,
    ) {
        let mut view = self.cluster.view();
        let seen = tokio::time::timeout(PATIENCE, view.wait_for(holds)).await;
        seen.unwrap_or_else(|_| panic!("{} does not see {what} in time", self.address()))
            .unwrap();
    }
}

/// Starts nodes with one seed list that names all of them.
async fn start_cluster(count: usize) -> Vec<TestNode> {
    start_cluster_with(count, limits()).await
}

async fn start_cluster_with(count: usize, limits: Limits) -> Vec<TestNode> {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(listen("127.0.0.1:0").await);
    }
    let seeds: Vec<String> = listeners.iter().map(|one| one.local_address()).collect();
    let mut nodes = Vec::new();
    for listener in listeners {
        let mut config = config(&listener.local_address(), &seeds);
        config.limits = limits.clone();
        nodes.push(TestNode::serve(config, listener, Arc::default()).await);
    }
    futures_util::future::join_all(nodes.iter().map(TestNode::started)).await;
    nodes
}

/// Has the leader of the metadata group transfer its leadership, and takes it from `nodes`.
async fn hand_over(nodes: &mut Vec<TestNode>) -> TestNode {
    // A single voter could not transfer the leadership.
    eventually("voters", || {
        let mut voters = nodes.iter().map(|node| node.cluster.metadata_voters());
        voters.all(|voters| voters.len() == nodes.len())
    })
    .await;
    eventually("controller", || nodes[0].cluster.controller().is_some()).await;
    let leader = nodes[0].cluster.controller().unwrap();
    let place = nodes.iter().position(|node| node.id() == leader).unwrap();
    let former = nodes.swap_remove(place);
    let handed_over = async {
        while former
            .cluster
            .controller()
            .is_none_or(|heir| heir == leader)
        {
            former.cluster.hand_over(PATIENCE).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let handed_over = tokio::time::timeout(PATIENCE, handed_over).await;
    handed_over.expect("no heir in time");
    former
}

fn create(name: &str, partitions: u32, replicas: u32) -> meta_command::Kind {
    meta_command::Kind::CreateTopic(CreateTopic {
        name: name.to_owned(),
        partitions,
        settings: Some(TopicSettings {
            replicas,
            ..TopicSettings::default()
        }),
        ..CreateTopic::default()
    })
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, held)
        .await
        .unwrap_or_else(|_| panic!("no {what} in time"));
}

#[tokio::test]
async fn a_node_without_seeds_founds_a_cluster_alone_and_comes_back_to_it() {
    let node = TestNode::start("127.0.0.1:0", &[], Arc::default()).await;
    assert_eq!(node.id(), NodeId(1));
    let created = node.cluster.propose(create("orders", 3, 1)).await.unwrap();
    assert!(
        matches!(created, Some(meta_reply::Kind::Topic(_))),
        "{created:?}"
    );
    let again = node
        .cluster
        .propose(create("orders", 3, 1))
        .await
        .unwrap_err();
    assert_eq!(again.code, ErrorCode::TopicExists);
    assert_eq!(
        node.cluster.view().borrow().topics["orders"]
            .partitions
            .len(),
        3
    );
    let cluster_id = node.cluster_id();
    let (config, disk) = node.stop().await;

    let node = TestNode::start(&config.advertise, &[], disk).await;
    assert_eq!((node.id(), node.cluster_id()), (NodeId(1), cluster_id));
    node.sees("its topic", |view| view.topics.contains_key("orders"))
        .await;
    node.cluster.propose(create("later", 1, 1)).await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn three_nodes_of_one_seed_list_form_one_cluster_and_any_of_them_can_change_it() {
    let nodes = start_cluster(3).await;
    let mut ids: Vec<u64> = nodes.iter().map(|node| node.id().0).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    for node in &nodes {
        assert_eq!(node.cluster_id(), nodes[0].cluster_id());
        let name = format!("by-{}", node.id());
        node.cluster.propose(create(&name, 2, 3)).await.unwrap();
        assert!(node.cluster.view().borrow().topics.contains_key(&name));
    }
    for node in &nodes {
        node.sees("all topics", |view| view.topics.len() == 3).await;
        eventually("controller", || {
            node.cluster.controller() == nodes[0].cluster.controller()
                && node.cluster.controller().is_some()
        })
        .await;
        eventually("life", || (1..=3).all(|id| node.cluster.alive(NodeId(id)))).await;
    }

    let info = LeaderInfo {
        node: nodes[0].id(),
        epoch: 4,
        in_sync: vec![nodes[0].id()],
        log_start_offset: 1,
        high_watermark: 9,
        log_bytes: 4_096,
    };
    let group: GroupId = nodes[0].cluster.view().borrow().topics["by-1"].partitions[0].group;
    nodes[0].cluster.leaders().lead(group, info.clone());
    for node in &nodes {
        eventually("leader", || {
            node.cluster.leaders().get(group).as_ref() == Some(&info)
        })
        .await;
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_change_is_made_though_the_node_that_led_the_metadata_dies() {
    let mut nodes = start_cluster(3).await;
    eventually("controller", || nodes[0].cluster.controller().is_some()).await;
    let leader = nodes[0].cluster.controller().unwrap();
    let place = nodes.iter().position(|node| node.id() == leader).unwrap();
    let (config, disk) = nodes.remove(place).stop().await;
    nodes[0]
        .cluster
        .propose(create("after", 1, 3))
        .await
        .unwrap();
    nodes[1]
        .sees("the change", |view| view.topics.contains_key("after"))
        .await;

    // Its seeds are no longer valid: it must return by itself.
    let back = TestNode::start(&config.advertise, &["127.0.0.1:1".into()], disk).await;
    assert_eq!(back.id(), leader);
    back.sees("what it missed", |view| view.topics.contains_key("after"))
        .await;
    back.cluster.propose(create("at-last", 1, 3)).await.unwrap();
    back.stop().await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_node_left_alone_knows_of_no_controller() {
    let mut nodes = start_cluster(3).await;
    eventually("controller", || nodes[0].cluster.controller().is_some()).await;
    let leader = nodes[0].cluster.controller().unwrap();
    let last = nodes.iter().position(|node| node.id() != leader).unwrap();
    let last = nodes.remove(last);
    // The leader stops last, and has no node to transfer the leadership to.
    nodes.sort_by_key(|node| node.id() == leader);
    for node in nodes {
        node.stop().await;
    }
    eventually("no controller", || last.cluster.controller().is_none()).await;
    last.stop().await;
}

#[tokio::test]
async fn a_node_without_its_data_takes_the_place_of_the_one_it_was() {
    let mut nodes = start_cluster(3).await;
    nodes[0]
        .cluster
        .propose(create("orders", 3, 3))
        .await
        .unwrap();
    let seeds = nodes[0].config.seeds.clone();
    let lost = nodes.pop().unwrap();
    let lost_id = lost.id();
    let (config, _) = lost.stop().await;

    let heir = TestNode::start(&config.advertise, &seeds, Arc::default()).await;
    assert_eq!(
        (heir.id(), heir.cluster_id()),
        (NodeId(4), nodes[0].cluster_id())
    );
    for node in nodes.iter().chain([&heir]) {
        node.sees("the heir in its place", |view| {
            let held = view.partitions().flat_map(|one| &one.replicas);
            let held: Vec<NodeId> = held.map(|place| place.node).collect();
            view.nodes[&lost_id].state == NodeState::Removed
                && held.contains(&NodeId(4))
                && !held.contains(&lost_id)
        })
        .await;
    }
    // The replacement votes: with it, one of the others may be down.
    eventually("vote", || {
        let voters = nodes[0].cluster.metadata_voters();
        voters.contains(&NodeId(4)) && !voters.contains(&lost_id)
    })
    .await;
    nodes.pop().unwrap().stop().await;
    let made = async {
        while let Err(error) = heir.cluster.propose(create("later", 1, 2)).await {
            // An earlier attempt may have succeeded without an answer.
            if error.code == ErrorCode::TopicExists {
                break;
            }
            // A busy machine may need several rounds to elect.
            assert_ne!(error.code.retry(), Retry::Never, "{error}");
        }
    };
    let made = tokio::time::timeout(PATIENCE, made).await;
    made.expect("the heir's vote does not count");
    heir.stop().await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_node_that_stops_hands_the_metadata_over_and_a_later_node_joins() {
    let mut nodes = start_cluster(3).await;
    let left = hand_over(&mut nodes).await;
    nodes.push(left);

    let seed = nodes[1].address().to_owned();
    let joined = TestNode::start("127.0.0.1:0", &[seed], Arc::default()).await;
    assert_eq!(joined.id(), NodeId(4));
    joined
        .cluster
        .propose(create("by-the-new-one", 1, 4))
        .await
        .unwrap();
    nodes.push(joined);
    for node in nodes {
        node.sees("the topic", |view| {
            view.topics.contains_key("by-the-new-one")
        })
        .await;
    }
}

#[tokio::test]
async fn a_node_that_comes_back_at_another_address_is_found_there() {
    let mut nodes = start_cluster(3).await;
    let moved = nodes.pop().unwrap();
    let id = moved.id();
    let (config, disk) = moved.stop().await;

    let moved = TestNode::start("127.0.0.1:0", &config.seeds, disk).await;
    assert_eq!(moved.id(), id);
    assert_ne!(moved.address(), config.advertise);
    nodes[0]
        .sees("the new address", |view| {
            view.nodes[&id].address == moved.address()
        })
        .await;
    nodes[0]
        .cluster
        .propose(create("orders", 1, 3))
        .await
        .unwrap();
    moved
        .sees("the topic", |view| view.topics.contains_key("orders"))
        .await;
    moved.stop().await;
    for node in nodes {
        node.stop().await;
    }
}
