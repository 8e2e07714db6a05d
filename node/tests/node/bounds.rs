//! Limits on the resources that one caller can hold on a node: the size of a request, its fields, streams,
//! connections, and unread answers. The node continues to serve others.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt;
use ropewalk_node::Config;
use ropewalk_node::env::{Net, TcpNet};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::raft_client::RaftClient;
use ropewalk_proto::v1::ropewalk_client::RopewalkClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::support::*;

fn code<T>(answer: Result<T, Status>) -> ErrorCode {
    let status = answer.err().expect("refused");
    WireError::from(&status).code
}

fn channel(node: &Node) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", node.config.listen));
    endpoint.expect("an address").connect_lazy()
}

#[tokio::test]
async fn a_topic_named_many_times_is_told_of_once() {
    let mut node = Node::start().await;
    let asking = v1::MetadataRequest {
        topics: vec![TOPIC.to_owned(); 40_000],
    };
    let answer = node.client.metadata(asking).await.expect("an answer");
    assert_eq!(answer.into_inner().topics.len(), 1);
    let asking = v1::ListPartitionsRequest {
        topics: vec![TOPIC.to_owned(); 40_000],
    };
    let answer = node.client.list_partitions(asking).await;
    assert_eq!(answer.expect("an answer").into_inner().topics.len(), 1);
    node.still_serves().await;
}

#[tokio::test]
async fn a_request_with_too_many_fields_is_refused_before_it_is_decoded() {
    let mut node = Node::start().await;
    let asking = v1::MetadataRequest {
        topics: vec![String::new(); 200_000],
    };
    let refused = code(node.client.metadata(asking).await);
    assert_eq!(refused, ErrorCode::InvalidRequest);
    let record = v1::PublishRequest {
        topic: TOPIC.to_owned(),
        headers: vec![v1::Header::default(); 1 << 20],
        ..Default::default()
    };
    let refused = code(node.client.publish(record).await);
    assert_eq!(refused, ErrorCode::InvalidRequest);
    let places = |count| v1::BacklogRequest {
        topic: TOPIC.to_owned(),
        from: vec![v1::BacklogFrom::default(); count],
        ..Default::default()
    };
    for count in [11_000, 1 << 20] {
        let refused = code(node.client.backlog(places(count)).await);
        assert_eq!(refused, ErrorCode::InvalidRequest, "{count} places");
    }
    node.still_serves().await;
}

#[tokio::test]
async fn a_request_is_as_large_as_its_call_needs() {
    let mut node = Node::start().await;
    let asking = v1::MetadataRequest {
        topics: vec!["x".repeat(5 << 20)],
    };
    let refused = code(node.client.metadata(asking).await);
    assert_eq!(refused, ErrorCode::TooLarge);
    let record = v1::PublishRequest {
        topic: TOPIC.to_owned(),
        value: Some(vec![0; 8 << 20].into()),
        ..Default::default()
    };
    let refused = code(node.client.publish(record).await);
    assert_eq!(refused, ErrorCode::TooLarge);
    node.still_serves().await;
}

#[tokio::test]
async fn streams_with_floods_of_empty_messages_are_ended() {
    let node = Node::start().await;
    let call = v1::HeartbeatCall {
        calls: vec![v1::AppendCall::default(); 8 << 20],
    };
    let mut raft = RaftClient::new(channel(&node));
    let flood = futures_util::stream::iter([call]).chain(futures_util::stream::pending());
    let answers = raft.heartbeat(flood).await.expect("a stream");
    let ended = timeout(PATIENCE, answers.into_inner().next()).await;
    assert!(!matches!(ended.expect("ended in time"), Some(Ok(_))));

    let commit = v1::Commit {
        positions: vec![v1::GroupPosition::default(); 1 << 20],
    };
    let commit = v1::GroupRequest {
        request_id: 1,
        kind: Some(v1::group_request::Kind::Commit(commit)),
    };
    let mut client = RopewalkClient::new(channel(&node));
    let flood = futures_util::stream::iter([commit]).chain(futures_util::stream::pending());
    let answers = client.join_group(flood).await.expect("a stream");
    let ended = timeout(PATIENCE, answers.into_inner().next()).await;
    let ended = ended.expect("ended in time").expect("it says why");
    assert_eq!(code(ended), ErrorCode::InvalidRequest);
    node.still_serves().await;
}

#[tokio::test]
async fn groups_begun_by_a_seek_count_as_others_do() {
    let change = |config: &mut Config| {
        config.limits.groups_per_coordinator = 2;
        config.limits.group_partitions = 1;
    };
    let mut node = Node::start_with(change).await;
    let seek = |group: usize| v1::SeekGroupRequest {
        group: format!("group-{group}"),
        topic: TOPIC.to_owned(),
        position: Some(v1::seek_group_request::Position::Beginning(true)),
        create: true,
        ..Default::default()
    };
    let mut refused = None;
    let until = Instant::now() + PATIENCE;
    let mut begun = 0;
    while refused.is_none() && begun < 10 {
        match node.client.seek_group(seek(begun)).await {
            Ok(_) => begun += 1,
            Err(status) => match WireError::from(&status) {
                error if error.code == ErrorCode::Overloaded => refused = Some(error),
                // The internal topic is being created.
                error => assert!(Instant::now() < until, "{error}"),
            },
        }
    }
    assert_eq!(begun, 2);
    let again = node.client.seek_group(seek(0)).await;
    again.expect("it is one of the two");
    node.still_serves().await;
}

#[tokio::test]
async fn streams_are_bounded_and_a_place_is_free_again_when_one_ends() {
    let node = Node::start_with(|config| config.limits.streams = 20).await;
    let mut client = RopewalkClient::new(channel(&node));
    let mut open = Vec::new();
    let refused = loop {
        // A client also ends its side of a stream.
        let (held, ended) = oneshot::channel::<()>();
        let requests = futures_util::stream::pending().take_until(ended);
        match client.produce(requests).await {
            Ok(answers) => open.push((answers, held)),
            Err(status) => break WireError::from(&status),
        }
        assert!(open.len() <= 10, "half of them from one address");
    };
    assert_eq!(refused.code, ErrorCode::Overloaded, "{refused}");
    drop(open);
    let again = async {
        while client
            .produce(futures_util::stream::pending())
            .await
            .is_err()
        {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("room again");
}

#[tokio::test]
async fn readers_that_take_nothing_make_room_for_those_that_do() {
    let change = |config: &mut Config| config.limits.answer_inflight_bytes = 8 << 20;
    let mut node = Node::start_with(change).await;
    let value = vec![b'v'; 900_000];
    for _ in 0..8 {
        let batch = batch((-1, -1, -1), &[&value]);
        node.produce(0, batch).await.expect("written");
    }
    let request = v1::FetchRequest {
        topic: TOPIC.to_owned(),
        max_bytes: 4 << 20,
        ..Default::default()
    };
    let mut stalled = Vec::new();
    for _ in 0..20 {
        // It reads the first bytes of an answer, and no more.
        let endpoint = Endpoint::from_shared(format!("http://{}", node.config.listen));
        let endpoint = endpoint.expect("an address").initial_stream_window_size(1);
        let mut client = RopewalkClient::new(endpoint.connect_lazy());
        let requests = futures_util::stream::iter([request.clone()]);
        let requests = requests.chain(futures_util::stream::pending());
        stalled.push((client.fetch(requests).await, client));
    }
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = node.fetch(0, 0).await;
        match answer.error {
            None => break assert!(!answer.batches.is_empty()),
            Some(error) => assert!(Instant::now() < until, "{error:?}"),
        }
    }
    node.still_serves().await;
}

#[tokio::test]
async fn a_probe_is_answered_while_others_send_their_headers_slowly() {
    let change = |config: &mut Config| {
        config.limits.connections = 20;
        config.limits.http_head_within_ms = 1_500;
    };
    let node = Node::start_with(change).await;
    let http = node.config.http.clone().expect("on");
    let mut slow = Vec::new();
    for _ in 0..10 {
        let mut one = node.connect(&http).await;
        one.write_all(b"GET /healthz HTTP/1.1\r\n")
            .await
            .expect("sent");
        slow.push(one);
    }
    let dripping = tokio::spawn(async move {
        let mut ended = 0;
        while ended < slow.len() {
            ended = 0;
            for one in &mut slow {
                ended += usize::from(one.write_all(b"x: y\r\n").await.is_err());
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    // Longer than the time for which a new connection is kept.
    sleep(Duration::from_millis(1_200)).await;
    let mut probe = node.connect(&http).await;
    let ask = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    probe.write_all(ask).await.expect("sent");
    let mut answer = String::new();
    let read = timeout(PATIENCE, probe.read_to_string(&mut answer)).await;
    read.expect("an answer in time").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let ended = timeout(PATIENCE, dripping).await;
    ended.expect("the slow ones are ended").expect("no panic");
}

/// The answer to a request; empty if the port is full.
async fn ask(address: &str, method: &str, path: &str) -> String {
    let mut connection = TcpNet.connect(address).await.expect("a connection");
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let asking = async {
        // Both fail if the node closes the connection at once.
        let _ = connection.write_all(request.as_bytes()).await;
        let _ = connection.read_to_end(&mut answer).await;
    };
    timeout(PATIENCE, asking).await.expect("an end in time");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Keeps a port full. Half of the connections send part of a request's head; the other half read none of many
/// answers.
async fn fill(address: String) {
    let half_a_head = b"GET /healthz HTTP/1.1\r\nx: ".to_vec();
    let many = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(600);
    let mut open = VecDeque::new();
    for words in [half_a_head, many].iter().cycle() {
        if let Ok(mut connection) = TcpNet.connect(&address).await {
            let _ = connection.write_all(words).await;
            open.push_back(connection);
        }
        if open.len() > 100 {
            open.pop_front();
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_for_probes_answers_while_the_http_port_is_full() {
    let probes = free_address();
    let change = |config: &mut Config| {
        config.limits.connections = 20;
        config.limits.probe_connections = 30;
        config.probes = Some(probes.clone());
    };
    let node = Node::start_with(change).await;
    let http = node.config.http.clone().expect("on");
    let page = ask(&http, "GET", "/metrics").await;
    let name = "ropewalk_connections_bound{port=\"probes\"} ";
    let mut bounds = page.lines().filter_map(|line| line.strip_prefix(name));
    let bound = bounds.next().and_then(|bound| bound.parse::<f64>().ok());
    assert_eq!(bound, Some(30.0), "{page}");

    let filling = tokio::spawn(fill(http.clone()));
    let until = Instant::now() + PATIENCE;
    let mut refused = 0;
    while refused < 20 {
        assert!(Instant::now() < until, "refused {refused} times only");
        let answer = ask(&http, "GET", "/healthz").await;
        refused += usize::from(answer.is_empty());
        for path in ["/healthz", "/readyz"] {
            let answer = ask(&probes, "GET", path).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer:?}");
        }
    }
    filling.abort();
    node.still_serves().await;
}

#[tokio::test]
async fn the_port_for_probes_serves_health_and_nothing_else() {
    let probes = free_address();
    let change = |config: &mut Config| {
        config.http = None;
        config.probes = Some(probes.clone());
        config.limits.http_head_within_ms = 500;
    };
    let node = Node::start_with(change).await;
    let answers = [
        ("GET", "/healthz", "200"),
        ("GET", "/readyz", "200"),
        ("GET", "/metrics", "404"),
        ("GET", "/", "404"),
        ("POST", "/healthz", "405"),
    ];
    for (method, path, status) in answers {
        let answer = ask(&probes, method, path).await;
        let expected = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&expected), "{method} {path}: {answer:?}");
    }
    let mut slow = node.connect(&probes).await;
    let half_a_head = b"GET /healthz HTTP/1.1\r\n";
    slow.write_all(half_a_head).await.expect("sent");
    let ended = timeout(PATIENCE, slow.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "half a head keeps its place");
    node.still_serves().await;
}
