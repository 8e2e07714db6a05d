//! Copied unit files, copied data directories, and machines with new addresses.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ropewalk_demo::cluster::{self, Node};
use ropewalk_demo::publish::Publisher;
use tokio::time::{Instant, sleep};

use crate::support::{Cluster, PATIENCE, binary, keyed_records};

/// Longer than the silence after which a node counts as dead.
const DEAD_AFTER: Duration = Duration::from_secs(4);

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

async fn logged(node: &Node, what: &str) {
    let until = Instant::now() + PATIENCE;
    while !fs::read_to_string(node.log_path()).unwrap().contains(what) {
        assert!(Instant::now() < until, "no {what:?}; {}", node.last_words());
        sleep(Duration::from_millis(50)).await;
    }
}

async fn with_topic(cluster: &Cluster) {
    let create = ["topic", "create", "t", "--partitions", "3"];
    cluster.run(&create).await.ok();
}

/// Publishes records, and reads them all.
async fn works(cluster: &Cluster, records: usize) {
    cluster.healthy().await;
    let producer = cluster.client().await.producer("t").build().await.unwrap();
    let mut publisher = Publisher::new(producer, 5_000);
    let records = keyed_records(records);
    publisher.publish(&records).await.unwrap();
    let acks = publisher.finish().await.unwrap();
    cluster.check("t", 3, &records, &acks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_with_the_address_of_a_living_one_is_refused_and_that_one_is_not_touched() {
    let cluster = Cluster::start(3, &[]).await;
    with_topic(&cluster).await;
    let mut stray = Node::new(binary(), cluster.dir.path().join("stray")).unwrap();
    let held = cluster.nodes[1].address.clone();
    let flags = ["--advertise", &held, "--seeds", &cluster.nodes[0].address];
    stray.flags.extend(flags.map(str::to_owned));
    stray.spawn().unwrap();
    let holder = cluster.ids[1];
    logged(&stray, &format!("address {held} belongs to node {holder}")).await;
    sleep(DEAD_AFTER).await;
    let status = cluster.run(&["cluster", "status"]).await.lines();
    assert_eq!(status.len(), 3, "{status:#?}");
    stray.kill().await.unwrap();
    works(&cluster, 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_data_directory_that_is_started_too_ends_and_says_why() {
    let mut cluster = Cluster::start(3, &[]).await;
    with_topic(&cluster).await;
    cluster.nodes[2].terminate(PATIENCE).await.unwrap();
    let mut twin = Node::new(binary(), cluster.dir.path().join("twin")).unwrap();
    copy(&cluster.nodes[2].data_dir(), &twin.data_dir());
    let ready = cluster.nodes[2].start(PATIENCE).await.unwrap();
    assert_eq!(ready.node_id, cluster.ids[2]);
    let seeds = cluster.addresses();
    twin.flags.extend(["--seeds".to_owned(), seeds]);
    let refusal = format!(
        "node {} runs at {}",
        cluster.ids[2], cluster.nodes[2].address
    );
    // In the second round the original is down, and the copy lacks its later changes.
    for round in 0..2 {
        twin.spawn().unwrap();
        let ended = twin.ended(PATIENCE).await.unwrap();
        assert!(!ended.success());
        assert!(
            twin.last_words().contains(&refusal),
            "{}",
            twin.last_words()
        );
        if round == 0 {
            works(&cluster, 1_000).await;
            cluster.nodes[2].terminate(PATIENCE).await.unwrap();
        }
    }
    let ready = cluster.nodes[2].start(PATIENCE).await.unwrap();
    assert_eq!(ready.node_id, cluster.ids[2]);
    cluster.healthy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_of_a_node_is_refused_before_it_says_that_it_is_ready() {
    let mut cluster = Cluster::start(3, &[]).await;
    let node = &mut cluster.nodes[2];
    node.terminate(PATIENCE).await.unwrap();
    let backup = cluster.dir.path().join("backup");
    copy(&node.data_dir(), &backup);
    node.start(PATIENCE).await.unwrap();
    node.terminate(PATIENCE).await.unwrap();
    fs::remove_dir_all(node.data_dir()).unwrap();
    copy(&backup, &node.data_dir());
    node.spawn().unwrap();
    let ready = node.ready(PATIENCE).await;
    assert!(ready.is_err(), "it said {ready:?}");
    assert!(!node.ended(PATIENCE).await.unwrap().success());
    let said = node.last_words();
    assert!(
        said.contains("an older state (a restored backup)"),
        "{said}"
    );
}

/// Stops these nodes, gives them other addresses, and starts them again with matching seeds.
async fn move_nodes(cluster: &mut Cluster, moved: std::ops::Range<usize>, addresses: &[String]) {
    for node in &mut cluster.nodes[moved.clone()] {
        node.terminate(PATIENCE).await.unwrap();
    }
    for (node, address) in cluster.nodes[moved.clone()].iter_mut().zip(addresses) {
        node.address.clone_from(address);
    }
    let seeds = cluster.addresses();
    let nodes = &mut cluster.nodes[moved];
    for node in nodes.iter_mut() {
        let at = node
            .flags
            .iter()
            .position(|flag| flag == "--seeds")
            .unwrap();
        node.flags[at + 1].clone_from(&seeds);
    }
    cluster::start_all(nodes, PATIENCE).await.unwrap();
}

fn fresh(count: usize) -> Vec<String> {
    let ports = (0..count).map(|_| cluster::free_port().unwrap());
    ports.map(|port| format!("127.0.0.1:{port}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_all_got_new_addresses_form_their_cluster_again() {
    let mut cluster = Cluster::start(3, &[]).await;
    with_topic(&cluster).await;
    move_nodes(&mut cluster, 0..3, &fresh(3)).await;
    works(&cluster, 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_nodes_that_got_new_addresses_are_found_by_the_third() {
    let mut cluster = Cluster::start(3, &[]).await;
    with_topic(&cluster).await;
    move_nodes(&mut cluster, 1..3, &fresh(2)).await;
    works(&cluster, 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_swapped_their_addresses_keep_their_ids_and_records() {
    let mut cluster = Cluster::start(3, &[]).await;
    with_topic(&cluster).await;
    let swapped = [1, 0].map(|node: usize| cluster.nodes[node].address.clone());
    move_nodes(&mut cluster, 0..2, &swapped).await;
    works(&cluster, 1_000).await;
    let status = cluster.run(&["cluster", "status"]).await.lines();
    for (node, id) in cluster.nodes.iter().zip(&cluster.ids) {
        let row = status.iter().find(|row| row["node_id"] == *id);
        assert_eq!(
            row.unwrap()["address"],
            node.address.as_str(),
            "{status:#?}"
        );
    }
}
