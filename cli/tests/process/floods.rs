//! Floods of log lines. Lines that outsiders can cause are limited and counted, and a log without a reader
//! blocks nothing.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use ropewalk_client::{Client, Record, TopicSettings};
use ropewalk_demo::cluster::free_port;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use crate::certificates::{Authority, Folder, HOST};
use crate::support::{Cluster, PATIENCE, binary, ropewalk};

const STRANGERS: u64 = 3_000;
/// Bytes that start like a TLS handshake, and continue like no protocol.
const NO_HANDSHAKE: &[u8] = b"\x16\x03\x01\x00\x05hello";
/// Maximum number of lines of one kind per second.
const LINES: u64 = 5;

// The sockets of a test are the outside world, which no simulation owns.
#[allow(clippy::disallowed_types)]
async fn connect(address: &str) -> tokio::net::TcpStream {
    tokio::net::TcpStream::connect(address).await.unwrap()
}

/// Number of dropped lines that a node reports.
async fn left_out(http: &str) -> u64 {
    let mut stream = connect(http).await;
    let ask = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let mut page = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut page)).await;
    read.unwrap().unwrap();
    let name = "ropewalk_log_lines_left_out_total ";
    let mut lines = page.lines();
    let count = lines.find_map(|line| line.strip_prefix(name)).unwrap();
    count.parse::<f64>().unwrap() as u64
}

#[tokio::test]
async fn thousands_of_refused_handshakes_are_a_few_lines_and_a_count() {
    let ours = Authority::new("ours");
    let folder = Folder::new(&[&ours], &ours.issue(HOST, 10));
    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (path("ca.pem"), path("cert.pem"), path("key.pem"));
    let http = format!("127.0.0.1:{}", free_port().unwrap());
    let files = ["--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
    let flags = [&["--http", &http, "--tls-mode", "both"], &files[..]].concat();
    let mut cluster = Cluster::start(1, &flags).await;

    let began = Instant::now();
    for _ in 0..STRANGERS {
        let mut stranger = connect(&cluster.nodes[0].address).await;
        stranger.write_all(NO_HANDSHAKE).await.unwrap();
        // The node closes the connection.
        let mut told = Vec::new();
        let _ = timeout(PATIENCE, stranger.read_to_end(&mut told)).await;
    }
    let windows = began.elapsed().as_secs() + 2;
    let left_out = left_out(&http).await;
    cluster.nodes[0].terminate(PATIENCE).await.unwrap();
    let log = fs::read_to_string(cluster.nodes[0].log_path()).unwrap();
    let lines = log
        .lines()
        .filter(|line| line.contains("connection refused"));
    let lines = lines.count() as u64;
    assert!((1..=windows * LINES).contains(&lines), "{lines} lines");
    assert!(
        lines + left_out >= STRANGERS,
        "{lines} lines, {left_out} left out"
    );
}

/// A node of its own cluster, with piped stdout and stderr.
fn node(dir: &std::path::Path, address: &str, http: &str, env: &[(&str, &str)]) -> Child {
    Command::new(binary())
        .args(["node", "--listen", address, "--http", http, "--data-dir"])
        .arg(dir.join("data"))
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn ready(child: &mut Child) -> Value {
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let read = timeout(PATIENCE, stdout.read_line(&mut line)).await;
    read.unwrap().unwrap();
    serde_json::from_str(line.strip_prefix("ready ").unwrap()).unwrap()
}

async fn terminate(mut child: Child) {
    let kill = format!("kill -TERM {}", child.id().unwrap());
    let told = Command::new("sh").args(["-c", &kill]).status().await;
    assert!(told.unwrap().success());
    let ended = timeout(PATIENCE, child.wait()).await;
    let ended = ended.expect("it ends though nobody reads").unwrap();
    assert!(ended.success(), "{ended}");
}

#[tokio::test]
async fn a_node_whose_log_nobody_reads_serves_and_ends_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let http = format!("127.0.0.1:{}", free_port().unwrap());
    let env = [("ROPEWALK_LOG", "trace")];
    let mut child = node(dir.path(), &address, &http, &env);
    ready(&mut child).await;
    let client = Client::connect([address]).await.unwrap();
    let settings = TopicSettings::default().replicas(1);
    let created = client.admin().create_topic("t", 1, settings).await;
    created.unwrap();
    let producer = client.producer("t").build().await.unwrap();
    // More than the pipe and the queue of waiting lines can hold.
    let flooded = async {
        while left_out(&http).await == 0 {
            let sent = producer.send(Record::new().value("v")).await.unwrap();
            sent.await.unwrap();
        }
    };
    timeout(PATIENCE, flooded).await.expect("the log is full");
    for _ in 0..100 {
        let sent = producer.send(Record::new().value("v")).await.unwrap();
        let acknowledged = timeout(Duration::from_secs(10), sent).await;
        acknowledged.expect("a log holds nothing up").unwrap();
    }
    // Stderr stays open, and unread.
    let _stderr = child.stderr.take();
    terminate(child).await;
}

#[tokio::test]
async fn each_line_of_json_says_which_node_it_is_from_the_last_one_too() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let http = format!("127.0.0.1:{}", free_port().unwrap());
    let env = [("ROPEWALK_LOG_FORMAT", "json")];
    let mut child = node(dir.path(), &address, &http, &env);
    let ready = ready(&mut child).await;
    let create = ["topic", "create", "t", "--replicas", "1"];
    let create = [&["--bootstrap", &address], &create[..]].concat();
    ropewalk(&create).await.ok();
    let mut stderr = child.stderr.take().unwrap();
    terminate(child).await;
    let mut log = String::new();
    stderr.read_to_string(&mut log).await.unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let stopping = |line: &&Value| line["signal"] == "SIGTERM";
    let stopping = lines.iter().find(stopping).expect(&log);
    assert_eq!(stopping["node_id"], ready["node_id"]);
    let first = lines.iter().position(|line| line["node_id"].is_u64());
    let since = &lines[first.unwrap()..];
    assert!(since.iter().all(|line| line["node_id"] == ready["node_id"]));
}
