//! One identity, one living process; one address, one node; and nodes that are found again at any address.

use ropewalk_proto::error::WireError;
use ropewalk_proto::v1::cluster_server::{self, ClusterServer};
use ropewalk_proto::v1::{
    FormAnswer, FormCall, HelloAnswer, HelloCall, JoinAnswer, JoinCall, ProposeMetaAnswer,
    ProposeMetaCall, ReportAnswer, ReportCall,
};
use tonic::{Request, Response, Status};

use super::*;
use crate::cluster::StartError;

/// Checks that a node gets no place during this time.
async fn stays_out(node: &TestNode, watched: Duration) {
    let started = tokio::time::timeout(watched, node.cluster.start()).await;
    assert!(started.is_err(), "{started:?}");
    assert_eq!(node.id(), NodeId(0));
}

#[tokio::test]
async fn a_new_node_does_not_get_the_address_of_one_that_lives_or_is_elsewhere_for_a_while() {
    let mut nodes = start_cluster(3).await;
    let holder = nodes.pop().unwrap();
    let (holder_id, address) = (holder.id(), holder.address().to_owned());
    // A copied unit file: the node listens at another address.
    let stray = TestNode::serve(
        config(&address, &holder.config.seeds),
        listen("127.0.0.1:0").await,
        Arc::default(),
    )
    .await;
    let longer_than_dead = Duration::from_millis(limits().node_dead_after_ms + 1_500);
    stays_out(&stray, longer_than_dead).await;
    let lives = |view: &Arc<ropewalk_machines::meta::MetadataImage>| {
        view.nodes.len() == 3 && view.nodes[&holder_id].state == NodeState::Active
    };
    assert!(
        nodes
            .iter()
            .all(|node| lives(&node.cluster.view().borrow()))
    );
    // The holder is down, and the others count it as dead. Its address still does not lead to the stray.
    let (config, disk) = holder.stop().await;
    stays_out(&stray, longer_than_dead).await;
    assert!(
        nodes
            .iter()
            .all(|node| lives(&node.cluster.view().borrow()))
    );
    stray.stop().await;
    let back = TestNode::start(&config.advertise, &config.seeds, disk).await;
    assert_eq!(back.id(), holder_id);
    nodes.push(back);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_new_node_gets_its_place_once_its_address_leads_to_it() {
    let mut nodes = start_cluster(3).await;
    let seeds = nodes[0].config.seeds.clone();
    let nowhere = listen("127.0.0.1:0").await.local_address();
    let unreached = TestNode::serve(
        config(&nowhere, &seeds),
        listen("127.0.0.1:0").await,
        Arc::default(),
    )
    .await;
    stays_out(&unreached, Duration::from_secs(4)).await;
    assert!(
        nodes
            .iter()
            .all(|node| node.cluster.view().borrow().nodes.len() == 3)
    );
    let (config, disk) = unreached.stop().await;
    nodes.push(TestNode::start(&config.advertise, &seeds, disk).await);
    nodes[0]
        .sees("the fourth node", |view| view.nodes.len() == 4)
        .await;
    stop_all(nodes).await;
}

/// A copy of the disk's present contents.
fn copy_of(disk: &MemoryDisk) -> Arc<MemoryDisk> {
    Arc::new(disk.reopened())
}

async fn serve_at(address: &str, seeds: &[String], disk: Arc<MemoryDisk>) -> TestNode {
    let listener = listen(address).await;
    let address = listener.local_address();
    TestNode::serve(config(&address, seeds), listener, disk).await
}

fn is_refused(started: &Result<(), StartError>) -> bool {
    matches!(started, Err(StartError::StartedTwice(_)))
}

#[tokio::test]
async fn a_copy_of_a_data_directory_ends_and_what_it_is_a_copy_of_goes_on() {
    let mut nodes = start_cluster(3).await;
    let original = &nodes[0];
    let (id, seeds) = (original.id(), original.config.seeds.clone());
    let disk = copy_of(&original.disk);
    let copy = serve_at("127.0.0.1:0", &seeds, disk).await;
    let started = copy.cluster.start().await;
    assert!(is_refused(&started), "{started:?}");
    let (config, disk) = copy.stop().await;
    // The copy is not used later either, when the original restarts: it lacks the original's later writes.
    nodes.remove(0).stop().await;
    let store = Store::open(disk.clone(), StoreOptions::default())
        .await
        .unwrap();
    let env = Env {
        clock: Arc::new(SystemClock),
        disk,
        net: Arc::new(TcpNet),
        seed: 7,
        log_lines_lost: || 0,
    };
    let peers = Peers::new(env.net.clone(), &config.limits);
    let inbound = ReplicaRouter::new(&config.limits);
    let again = Cluster::new(&config, &env, &store, &peers, &inbound).await;
    assert!(is_refused(&again.map(|_| ())));
    for node in &nodes {
        assert_eq!(
            node.cluster.view().borrow().nodes[&id].state,
            NodeState::Active
        );
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn of_two_copies_of_one_count_at_new_addresses_exactly_one_survives() {
    let mut nodes = start_cluster(3).await;
    let seeds = nodes[0].config.seeds.clone();
    let (_, disk) = nodes.pop().unwrap().stop().await;
    let twins = [
        serve_at("127.0.0.1:0", &seeds, copy_of(&disk)).await,
        serve_at("127.0.0.1:0", &seeds, copy_of(&disk)).await,
    ];
    let until_refused = twins.iter().map(|twin| async move {
        match twin.cluster.start().await {
            Ok(()) => drop(twin.cluster.superseded().await),
            refused => assert!(is_refused(&refused), "{refused:?}"),
        }
    });
    let mut waiting: Vec<_> = until_refused.map(Box::pin).collect();
    let first = futures_util::future::select_all(waiting.iter_mut());
    let first = tokio::time::timeout(PATIENCE, first).await;
    let (_, refused, _) = first.expect("one of them is refused");
    let other = waiting.swap_remove(1 - refused);
    let survives = tokio::time::timeout(Duration::from_secs(4), other).await;
    assert!(survives.is_err(), "none of them survives");
    drop(waiting);
    for node in nodes.into_iter().chain(twins) {
        node.stop().await;
    }
}

/// Restarts nodes on their disks at other addresses, each with all of these as its seeds.
async fn start_at(addresses: Vec<Box<dyn Listener>>, disks: Vec<Arc<MemoryDisk>>) -> Vec<TestNode> {
    let seeds: Vec<String> = addresses.iter().map(|one| one.local_address()).collect();
    let mut nodes = Vec::new();
    for (listener, disk) in addresses.into_iter().zip(disks) {
        let config = config(&listener.local_address(), &seeds);
        nodes.push(TestNode::serve(config, listener, disk).await);
    }
    futures_util::future::join_all(nodes.iter().map(TestNode::started)).await;
    nodes
}

async fn stop_all(nodes: Vec<TestNode>) -> (Vec<String>, Vec<Arc<MemoryDisk>>) {
    let (mut addresses, mut disks) = (Vec::new(), Vec::new());
    for node in nodes {
        let (config, disk) = node.stop().await;
        addresses.push(config.advertise);
        disks.push(disk);
    }
    (addresses, disks)
}

async fn all_registered(nodes: &[TestNode]) {
    for node in nodes {
        for other in nodes {
            node.sees("where the others are", |view| {
                view.nodes[&other.id()].address == other.address()
            })
            .await;
        }
    }
    let topic = create("after", 1, 3);
    nodes[0].cluster.propose(topic).await.unwrap();
}

#[tokio::test]
async fn nodes_that_are_all_at_new_addresses_find_each_other_again() {
    let nodes = start_cluster(3).await;
    let cluster_id = nodes[0].cluster_id();
    let (_, disks) = stop_all(nodes).await;
    let mut fresh = Vec::new();
    for _ in 0..3 {
        fresh.push(listen("127.0.0.1:0").await);
    }
    let nodes = start_at(fresh, disks).await;
    all_registered(&nodes).await;
    assert_eq!(nodes[0].cluster_id(), cluster_id);
    stop_all(nodes).await;
}

#[tokio::test]
async fn two_of_three_nodes_that_have_changed_their_addresses_are_found() {
    let mut nodes = start_cluster(3).await;
    let stays = nodes.remove(0);
    let (_, disks) = stop_all(nodes).await;
    let seeds = vec![stays.address().to_owned()];
    let mut nodes = vec![stays];
    for disk in disks {
        nodes.push(serve_at("127.0.0.1:0", &seeds, disk).await);
    }
    futures_util::future::join_all(nodes[1..].iter().map(TestNode::started)).await;
    all_registered(&nodes).await;
    stop_all(nodes).await;
}

#[tokio::test]
async fn two_nodes_whose_addresses_were_swapped_are_told_apart() {
    let nodes = start_cluster(3).await;
    let ids: Vec<NodeId> = nodes.iter().map(TestNode::id).collect();
    let (mut addresses, disks) = stop_all(nodes).await;
    addresses.swap(0, 1);
    let mut listeners = Vec::new();
    for address in &addresses {
        listeners.push(listen(address).await);
    }
    let nodes = start_at(listeners, disks).await;
    all_registered(&nodes).await;
    assert_eq!(nodes.iter().map(TestNode::id).collect::<Vec<_>>(), ids);
    for node in &nodes {
        let view = node.cluster.view().borrow().clone();
        assert!(
            view.nodes
                .values()
                .all(|one| one.state == NodeState::Active)
        );
    }
    stop_all(nodes).await;
}

/// A process that answers every node that it was removed.
struct Liar;

#[tonic::async_trait]
impl cluster_server::Cluster for Liar {
    async fn hello(&self, _: Request<HelloCall>) -> Result<Response<HelloAnswer>, Status> {
        Err(lie())
    }
    async fn form(&self, _: Request<FormCall>) -> Result<Response<FormAnswer>, Status> {
        Err(lie())
    }
    async fn join(&self, _: Request<JoinCall>) -> Result<Response<JoinAnswer>, Status> {
        Err(lie())
    }
    async fn propose_meta(
        &self,
        _: Request<ProposeMetaCall>,
    ) -> Result<Response<ProposeMetaAnswer>, Status> {
        Err(lie())
    }
    async fn report(&self, _: Request<ReportCall>) -> Result<Response<ReportAnswer>, Status> {
        Err(lie())
    }
}

fn lie() -> Status {
    WireError::new(ErrorCode::NodeRemoved, "you were removed").into()
}

/// Answers at the address of a stopped node until the guard is dropped.
async fn lie_at(address: &str) -> tokio_util::task::AbortOnDropHandle<()> {
    let listener = listen(address).await;
    let served = peer::server(&limits())
        .add_service(ClusterServer::new(Liar))
        .serve_with_incoming(
            Incoming::new(listener, ConnectionBounds::of(64), CancellationToken::new())
                .into_stream(),
        );
    tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move { served.await.unwrap() }))
}

#[tokio::test]
async fn nobody_but_the_leader_of_the_metadata_is_believed_that_a_node_was_removed() {
    let mut nodes = start_cluster(3).await;
    eventually("controller", || nodes[0].cluster.controller().is_some()).await;
    let leader = nodes[0].cluster.controller().unwrap();
    let follower = nodes.iter().position(|node| node.id() != leader).unwrap();
    let gone = nodes.remove(follower);
    let (config, _) = gone.stop().await;
    let _liar = lie_at(&config.advertise).await;
    for _ in 0..30 {
        assert!(nodes.iter().all(|node| !node.cluster.is_forsaken()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn what_a_false_leader_said_is_taken_back_when_the_true_one_answers() {
    let mut nodes = start_cluster(3).await;
    eventually("life", || {
        (1..=3).all(|id| nodes.iter().all(|n| n.cluster.alive(NodeId(id))))
    })
    .await;
    eventually("controller", || nodes[0].cluster.controller().is_some()).await;
    let leader = nodes[0].cluster.controller().unwrap();
    let leads = nodes.iter().position(|node| node.id() == leader).unwrap();
    let (config, _) = nodes.remove(leads).stop().await;
    let _liar = lie_at(&config.advertise).await;
    eventually("a new leader", || {
        let led = nodes[0].cluster.controller();
        led.is_some_and(|new| new != leader)
    })
    .await;
    eventually("no lie that is believed", || {
        nodes.iter().all(|node| !node.cluster.is_forsaken())
    })
    .await;
    nodes[0]
        .cluster
        .propose(create("after", 1, 2))
        .await
        .unwrap();
    for node in nodes {
        node.stop().await;
    }
}
