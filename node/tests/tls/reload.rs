//! Certificates that change while a node runs.

use std::fs;
use std::time::Duration;

use ropewalk_client::{Client, ErrorKind, Tls};
use ropewalk_node::env::Net;
use ropewalk_node::env::tls::ClientAuth;
use tokio::time::timeout;

use crate::certificates::{Authority, Folder, HOST};
use crate::support::{Node, PATIENCE, builder, on, one};

/// Longer than two intervals between the node's checks of its files.
const TWO_LOOKS: Duration = Duration::from_secs(5);

fn not_after_ms(node: &Node) -> Option<i64> {
    node.net.as_ref()?.certificate_not_after_ms()
}

async fn connect(nodes: &[Node], ca: &Folder) -> Result<Client, ropewalk_client::Error> {
    builder(nodes)
        .tls(Tls::new(ca.path("ca.pem")))
        .connect()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_serves_new_connections_and_a_bad_one_changes_nothing() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let folder = Folder::new(&[&old, &new], &old.issue(HOST, 10));
    let nodes = one(on(&folder, ClientAuth::None)).await;
    let trusts_old = Folder::new(&[&old], &old.issue("c", 10));
    let trusts_new = Folder::new(&[&new], &new.issue("c", 10));
    let before = connect(&nodes, &trusts_old).await.expect("trusted");
    let error = connect(&nodes, &trusts_new).await.expect_err("not yet");
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");

    let first = not_after_ms(&nodes[0]).expect("a certificate");
    folder.put(&new.issue(HOST, 20));
    let taken_up = async {
        while not_after_ms(&nodes[0]) == Some(first) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, taken_up).await.expect("taken up in time");
    let second = not_after_ms(&nodes[0]).expect("a certificate");
    assert!(second > first);
    connect(&nodes, &trusts_new).await.expect("trusted by now");
    let error = connect(&nodes, &trusts_old).await.expect_err("no more");
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    // An open connection stays open.
    before.admin().topics().await.expect("the old connection");

    fs::write(folder.path("cert.pem"), "half a certifi").expect("written");
    tokio::time::sleep(TWO_LOOKS).await;
    assert_eq!(not_after_ms(&nodes[0]), Some(second));
    connect(&nodes, &trusts_new).await.expect("as before");
}
