//! Callers that mark a call as forwarded. A node ignores the mark of callers on its external port, and of
//! those whose certificate is no node's.

use std::sync::Arc;
use std::time::Duration;

use ropewalk_client::{Client, TopicSettings};
use ropewalk_node::config::Limits;
use ropewalk_node::env::tls::{ClientAuth, TlsNet, TlsSettings};
use ropewalk_node::env::{Net, SystemClock, TcpNet};
use ropewalk_node::peer::Peers;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::ropewalk_client::RopewalkClient;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use crate::certificates::Folder;
use crate::external::{channel, external, with_external};
use crate::support::{Node, PATIENCE, builder, healthy, identity, nodes, on, own_files, start_all};

const TOPIC: &str = "flights";

async fn create_topic(client: &Client) {
    let settings = TopicSettings::default().replicas(2);
    let created = client.admin().create_topic(TOPIC, 1, settings).await;
    created.expect("a topic");
    healthy(client, TOPIC, 2).await;
}

/// Publishes a record with the mark of a forwarded call.
async fn publish_marked(channel: Channel) -> Result<(), ErrorCode> {
    let mut request = tonic::Request::new(v1::PublishRequest {
        topic: TOPIC.to_owned(),
        value: Some("on time".into()),
        ..Default::default()
    });
    let mark = MetadataValue::from_static("1");
    request.metadata_mut().insert("ropewalk-forwarded", mark);
    let published = RopewalkClient::new(channel).publish(request).await;
    let published = published.map(|_| ());
    published.map_err(|status| WireError::from(&status).code)
}

/// Waits until some node refuses a marked record that comes from `nodes`, since it does not lead, and forwards
/// one that comes from `clients`.
async fn told_apart(
    cluster: &[Node],
    nodes: impl Fn(&Node) -> Channel,
    clients: impl Fn(&Node) -> Channel,
) {
    let asking = async {
        loop {
            for node in cluster {
                let from_node = publish_marked(nodes(node)).await;
                let from_client = publish_marked(clients(node)).await;
                if from_node == Err(ErrorCode::NotLeader) && from_client.is_ok() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let told = tokio::time::timeout(PATIENCE, asking).await;
    told.expect("a follower that refuses the one and forwards the other");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mark_of_a_forwarded_call_is_ignored_on_the_external_port() {
    let mut cluster = with_external(2);
    start_all(&mut cluster, &TlsSettings::Off).await;
    create_topic(&builder(&cluster).connect().await.expect("inside")).await;
    let inside = |node: &Node| channel(&node.config.advertise);
    let outside = |node: &Node| channel(external(node));
    told_apart(&cluster, inside, outside).await;
}

/// Connections of a side with these files.
async fn dialing(files: &Folder) -> Peers {
    let tls = on(files, ClientAuth::None);
    let net = TlsNet::new(Arc::new(TcpNet), tls, Arc::new(SystemClock)).await;
    let net: Arc<dyn Net> = Arc::new(net.expect("good files"));
    Peers::new(net, &Limits::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mark_of_a_forwarded_call_is_ignored_from_a_client_with_a_certificate() {
    let (ours, folder) = own_files();
    let mut cluster = nodes(2);
    start_all(&mut cluster, &on(&folder, ClientAuth::Required)).await;
    let admin = builder(&cluster).tls(identity(&folder.files())).connect();
    create_topic(&admin.await.expect("trusted")).await;

    let client = Folder::new(&[&ours], &ours.issue_to_client("client.example", 10));
    let (node, client) = (dialing(&folder).await, dialing(&client).await);
    let from_node = |at: &Node| node.channel(&at.config.advertise);
    let from_client = |at: &Node| client.channel(&at.config.advertise);
    told_apart(&cluster, from_node, from_client).await;
}
