//! Clients that reach nodes only by a second port, as from outside a Kubernetes cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use ropewalk_client::{Client, Record, TopicSettings};
use ropewalk_node::config::External;
use ropewalk_node::env::tls::{ClientAuth, TlsSettings};
use ropewalk_proto::v1;
use ropewalk_proto::v1::cluster_client::ClusterClient;
use ropewalk_proto::v1::ropewalk_client::RopewalkClient;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::support::{
    Node, PATIENCE, builder, free_address, healthy, identity, nodes, on, own_files, start_all,
};

const TOPIC: &str = "flights";

pub fn with_external(count: usize) -> Vec<Node> {
    let mut nodes = nodes(count);
    for node in &mut nodes {
        let address = free_address();
        node.config.external = Some(External {
            listen: address.clone(),
            advertise: address,
        });
    }
    nodes
}

pub fn external(node: &Node) -> &str {
    let external = node.config.external.as_ref();
    external.map_or("", |external| &external.advertise)
}

/// Waits until the metadata has these external addresses of the nodes.
async fn known(client: &Client, wanted: &BTreeSet<&str>) {
    let waiting = async {
        loop {
            let status = client.admin().cluster_status().await.expect("a status");
            let externals = status.nodes.iter().map(|node| node.external.as_deref());
            let externals = externals.map(Option::unwrap_or_default);
            if externals.collect::<BTreeSet<&str>>() == *wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("never told: {wanted:?}"));
}

pub fn channel(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    endpoint.expect("an address").connect_lazy()
}

/// The node addresses that a node gives to its clients.
async fn told(address: &str) -> BTreeSet<String> {
    let mut client = RopewalkClient::new(channel(address));
    let answer = client.metadata(v1::MetadataRequest::default()).await;
    let nodes = answer.expect("metadata").into_inner().nodes;
    nodes.into_iter().map(|node| node.address).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reaches_one_external_port_reaches_every_leader_with_tls_too() {
    let (ours, folder) = own_files();
    let mut cluster = with_external(3);
    start_all(&mut cluster, &on(&folder, ClientAuth::Required)).await;
    let tls = identity(&folder.files());
    let outside = Client::builder([external(&cluster[0])]).tls(tls);
    let outside = outside.request_timeout(PATIENCE).connect();
    let outside = outside.await.expect("one external address is enough");
    known(&outside, &cluster.iter().map(external).collect()).await;

    let settings = TopicSettings::default().replicas(3);
    let created = outside.admin().create_topic(TOPIC, 3, settings).await;
    created.expect("a topic");
    healthy(&outside, TOPIC, 3).await;
    let producer = outside.producer(TOPIC).build().await.expect("a producer");
    for number in 0..30 {
        let record = Record::new().key(number.to_string()).value("on time");
        let ticket = producer.send(record).await.expect("room");
        ticket.await.expect("every leader is reached");
    }
    drop(ours);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_in_by_the_external_port_is_told_external_addresses_and_nodes_are_not_served_there()
 {
    let mut cluster = with_external(2);
    start_all(&mut cluster, &TlsSettings::Off).await;
    let inside = builder(&cluster).connect().await.expect("inside");
    let externals: BTreeSet<String> = cluster.iter().map(|n| external(n).to_owned()).collect();
    known(&inside, &cluster.iter().map(external).collect()).await;
    for node in &cluster {
        assert_eq!(told(external(node)).await, externals);
        let internals = cluster.iter().map(|node| node.config.advertise.clone());
        assert_eq!(told(&node.config.advertise).await, internals.collect());
    }
    let settings = TopicSettings::default().replicas(2);
    let created = inside.admin().create_topic(TOPIC, 1, settings).await;
    created.expect("a topic");
    healthy(&inside, TOPIC, 2).await;

    for node in &cluster {
        let hello = ClusterClient::new(channel(external(node)))
            .hello(v1::HelloCall::default())
            .await;
        assert_eq!(hello.expect_err("clients only").code(), Code::Unimplemented);
    }
    let named = leader_named_by_the_follower(&cluster).await;
    assert!(externals.contains(&named), "{named}");
}

/// The leader's address that a follower gives to a client of its external port. Waits until the follower
/// knows a leader.
async fn leader_named_by_the_follower(cluster: &[Node]) -> String {
    let asking = async {
        loop {
            for node in cluster {
                if let Some(leader) = leader_named(external(node)).await {
                    return leader.address;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let named = tokio::time::timeout(PATIENCE, asking).await;
    named.expect("a follower in time")
}

async fn leader_named(address: &str) -> Option<v1::NodeInfo> {
    let asked = v1::FetchRequest {
        topic: TOPIC.to_owned(),
        max_bytes: 1 << 20,
        ..Default::default()
    };
    let asked = futures_util::stream::iter([asked]);
    let answers = RopewalkClient::new(channel(address)).fetch(asked).await;
    let answer = answers.expect("served").into_inner().message().await;
    answer
        .expect("no failure")
        .expect("an answer")
        .error?
        .leader
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_address_that_changes_or_goes_is_told_anew() {
    let mut cluster = with_external(1);
    start_all(&mut cluster, &TlsSettings::Off).await;
    let inside = builder(&cluster).connect().await.expect("inside");
    known(&inside, &[external(&cluster[0])].into()).await;
    if let Some(external) = &mut cluster[0].config.external {
        external.advertise = "log-1.example.com:9000".to_owned();
    }
    cluster[0].restart(&TlsSettings::Off).await;
    known(&inside, &["log-1.example.com:9000"].into()).await;
    cluster[0].config.external = None;
    cluster[0].restart(&TlsSettings::Off).await;
    known(&inside, &[""].into()).await;
}
