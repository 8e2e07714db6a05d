//! Invalid input gets a clear error and costs no acknowledged record: the node in each of these tests
//! continues to serve.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use ropewalk_node::env::{Net, TcpNet};
use ropewalk_node::{Config, RunError};
use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::*;

fn code(error: Result<u64, (ErrorCode, String)>) -> ErrorCode {
    let (code, message) = error.expect_err("refused");
    assert!(!message.is_empty(), "an error says what happened");
    code
}

#[tokio::test]
async fn batches_that_do_not_hold_up_are_refused() {
    let mut node = Node::start().await;
    let good = batch((-1, -1, -1), &[b"value"]);
    let mut flipped = good.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(
        code(node.produce(0, flipped.into()).await),
        ErrorCode::CorruptBatch
    );
    let truncated = good.slice(..good.len() - 1);
    assert_eq!(
        code(node.produce(0, truncated).await),
        ErrorCode::CorruptBatch
    );
    assert_eq!(
        code(node.produce(0, Bytes::new()).await),
        ErrorCode::CorruptBatch
    );
    let oversized = batch((-1, -1, -1), &[&vec![0; 2 << 20]]);
    assert_eq!(code(node.produce(0, oversized).await), ErrorCode::TooLarge);
    let record = vec![0; 2 << 20];
    assert_eq!(
        code(node.publish(TOPIC, &record).await),
        ErrorCode::TooLarge
    );
    node.still_serves().await;
}

#[tokio::test]
async fn a_producer_that_is_fenced_or_left_something_out_is_told_so() {
    let mut node = Node::start().await;
    // A node allocates ids in blocks of a thousand.
    let given = node
        .client
        .init_producer(v1::InitProducerRequest::default())
        .await;
    given.expect("an id");
    assert_eq!(
        node.produce(0, batch((7, 1, 0), &[b"a", b"b"])).await,
        Ok(1)
    );
    assert_eq!(
        node.produce(0, batch((7, 1, 0), &[b"a", b"b"])).await,
        Ok(1),
        "the first offset"
    );
    let gap = node.produce(0, batch((7, 1, 5), &[b"c"])).await;
    assert_eq!(code(gap), ErrorCode::OutOfOrderSequence);
    assert_eq!(node.produce(0, batch((7, 2, 0), &[b"c"])).await, Ok(3));
    let fenced = node.produce(0, batch((7, 1, 2), &[b"d"])).await;
    assert_eq!(code(fenced), ErrorCode::ProducerFenced);
    node.still_serves().await;
}

#[tokio::test]
async fn topics_and_partitions_that_cannot_be_are_refused() {
    let mut node = Node::start().await;
    let unknown = node.produce_to("none", 0, batch((-1, -1, -1), &[b"a"]));
    assert_eq!(code(unknown.await), ErrorCode::UnknownTopic);
    assert_eq!(
        code(node.publish("none", b"a").await),
        ErrorCode::UnknownTopic
    );
    assert_eq!(
        code(node.produce(1, batch((-1, -1, -1), &[b"a"])).await),
        ErrorCode::UnknownPartition
    );
    let unread = node.fetch(9, 0).await.error.expect("refused");
    assert_eq!(
        ErrorCode::from_number(unread.code),
        ErrorCode::UnknownPartition
    );
    let beyond = node.fetch(0, 1_000).await.error.expect("refused");
    assert_eq!(
        ErrorCode::from_number(beyond.code),
        ErrorCode::OffsetOutOfRange
    );
    for name in ["", ".", "..", "a b", "ümlaut", "a/b", &"x".repeat(300)] {
        let error = node.create_topic(name, 1).await.expect_err(name);
        assert_eq!(error.code, ErrorCode::InvalidTopicName, "{name:?}");
    }
    assert!(node.create_topic("none", 0).await.is_err());
    assert!(node.create_topic("many", 1_000_000).await.is_err());
    node.still_serves().await;
}

/// The status line of the answer to a GET, and the rest.
async fn get(address: &str, path: &str) -> String {
    let mut connection = TcpNet.connect(address).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .await
        .expect("sent");
    let mut answer = String::new();
    let reading = connection.read_to_string(&mut answer);
    timeout(PATIENCE, reading)
        .await
        .expect("an answer in time")
        .expect("an answer");
    answer
}

#[tokio::test]
async fn a_node_whose_seeds_do_not_answer_is_alive_and_says_that_it_is_not_ready() {
    let (address, http) = (free_address(), free_address());
    let config = Config {
        advertise: address.clone(),
        listen: address.clone(),
        http: Some(http.clone()),
        seeds: vec![address, free_address()],
        ..Config::default()
    };
    let shutdown = CancellationToken::new();
    let (running, _is_ready) = start(&config, &Arc::default(), &shutdown);
    let listening = async {
        while TcpNet.connect(&http).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, listening).await.expect("it listens");
    assert!(get(&http, "/healthz").await.starts_with("HTTP/1.1 200"));
    let readiness = get(&http, "/readyz").await;
    assert!(readiness.starts_with("HTTP/1.1 503"), "{readiness}");
    assert!(readiness.contains("not in a cluster yet"), "{readiness}");
    shutdown.cancel();
    let ended = timeout(PATIENCE, running).await.expect("ends in time");
    ended.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn connections_over_the_bound_are_closed_on_every_port() {
    let config = |config: &mut Config| config.limits.connections = 20;
    let node = Node::start_with(config).await;
    for address in [&node.config.listen, node.config.http.as_ref().unwrap()] {
        let mut open = Vec::new();
        // One address may have half of the connections.
        for _ in 0..20 {
            open.push(node.connect(address).await);
        }
        let mut over = node.connect(address).await;
        let read = timeout(PATIENCE, over.read(&mut [0; 1])).await;
        assert_eq!(read.expect("closed in time").unwrap_or(0), 0);
    }
    node.still_serves().await;
}

#[tokio::test]
async fn garbage_on_every_port_ends_only_its_own_connection() {
    let node = Node::start().await;
    let http = node.config.http.clone().unwrap();
    for address in [&node.config.listen, &http] {
        for garbage in [
            &b"GET / HTTP/0.9\r\n\r\n"[..],
            &[0xff; 4_096],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let mut connection = node.connect(address).await;
            // The node may close the connection before all of it is written.
            let _ = connection.write_all(garbage).await;
            let mut answer = Vec::new();
            let _ = timeout(Duration::from_secs(2), connection.read_to_end(&mut answer)).await;
        }
    }
    node.still_serves().await;
}

#[tokio::test]
async fn silent_connections_keep_nobody_else_waiting() {
    let node = Node::start().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(node.connect(&node.config.listen).await);
    }
    node.still_serves().await;
}

#[tokio::test]
async fn a_reader_that_never_reads_holds_up_only_itself() {
    let mut node = Node::start().await;
    let value = vec![b'v'; 500_000];
    for _ in 0..40 {
        node.produce(0, batch((-1, -1, -1), &[&value]))
            .await
            .expect("written");
    }
    let request = |request_id| v1::FetchRequest {
        request_id,
        topic: TOPIC.to_string(),
        max_bytes: 4 << 20,
        ..Default::default()
    };
    let requests = futures_util::stream::iter((0..1_000).map(request));
    let unread = node
        .client
        .fetch(requests.chain(futures_util::stream::pending()))
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(node.produce(0, batch((-1, -1, -1), &[b"x"])).await, Ok(41));
    drop(unread);
    node.still_serves().await;
}

#[tokio::test]
async fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    let mut node = Node::start().await;
    node.disk.set_free_bytes(1);
    let refused = async {
        loop {
            if let Err((code, _)) = node.produce(0, batch((-1, -1, -1), &[b"x"])).await {
                return code;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let refused = timeout(PATIENCE, refused)
        .await
        .expect("the disk is looked at");
    assert_eq!(refused, ErrorCode::DiskFull);
    let readiness = get(node.config.http.as_ref().unwrap(), "/readyz").await;
    assert!(readiness.starts_with("HTTP/1.1 503"), "{readiness}");
    assert!(readiness.contains("disk is full"), "{readiness}");
    assert_eq!(node.fetch(0, 0).await.error, None);
    node.disk.set_free_bytes(1 << 40);
    node.produce_until_led(batch((-1, -1, -1), &[b"y"])).await;
    node.still_serves().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let node = Node::start().await;
    let (second, _) = start(&node.config, &Arc::default(), &CancellationToken::new());
    let error = second
        .await
        .expect("no panic")
        .expect_err("the port is taken");
    assert!(matches!(error, RunError::Listen(_)));
    assert!(error.to_string().contains(&node.config.listen), "{error}");
    node.still_serves().await;
}
