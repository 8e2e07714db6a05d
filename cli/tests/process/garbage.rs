//! Arbitrary input on a port must not stop a node, or keep it from serving valid clients.

use std::time::Duration;

use ropewalk_demo::cluster::free_port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{Cluster, PATIENCE};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
/// Time for which a client that never reads continues to write.
const FLOOD: Duration = Duration::from_secs(1);

/// Meaningless bytes, the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state: u32 = 0x9e37_79b9;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

// The sockets of a test are the outside world, which no simulation owns.
#[allow(clippy::disallowed_types)]
async fn connect(address: &str) -> tokio::net::TcpStream {
    tokio::net::TcpStream::connect(address).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_half_open_connections_and_clients_that_never_read_cost_nothing() {
    let http = format!("127.0.0.1:{}", free_port().unwrap());
    let mut cluster = Cluster::start(1, &["--http", &http]).await;
    let grpc = cluster.nodes[0].address.clone();
    cluster
        .run(&[
            "topic",
            "create",
            "t",
            "--partitions",
            "1",
            "--replicas",
            "1",
        ])
        .await
        .ok();
    cluster.run_with(b"before\n", &["produce", "t"]).await.ok();

    // Each of these stays open and incomplete until the end of the test.
    let mut open = Vec::new();
    let frame_of_16_mib = [&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1][..], &noise(1_000)].concat();
    let said: [Vec<u8>; 7] = [
        Vec::new(),
        noise(100_000),
        PREFACE[..10].to_vec(),
        [PREFACE, &noise(100_000)].concat(),
        [PREFACE, SETTINGS, &frame_of_16_mib].concat(),
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        [b"GET /".as_slice(), &b"a".repeat(1 << 20)].concat(),
    ];
    for address in [&grpc, &http] {
        for bytes in &said {
            let mut stream = connect(address).await;
            // The node may close the connection before it has read everything.
            let _ = timeout(FLOOD, stream.write_all(bytes)).await;
            open.push(stream);
        }
    }
    let mut deaf = connect(&grpc).await;
    deaf.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
    let pings = PING.repeat(1_000);
    let flood = async { while deaf.write_all(&pings).await.is_ok() {} };
    let _ = timeout(FLOOD, flood).await;

    cluster.run_with(b"after\n", &["produce", "t"]).await.ok();
    let read = cluster.run(&["consume", "t"]).await.lines();
    let values: Vec<&str> = read
        .iter()
        .filter_map(|record| record["value"].as_str())
        .collect();
    assert_eq!(values, ["before", "after"]);
    let mut asked = connect(&http).await;
    asked
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, asked.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let ended = cluster.nodes[0].terminate(PATIENCE).await.unwrap();
    assert!(
        ended.success(),
        "{ended}; {}",
        cluster.nodes[0].last_words()
    );
    drop((open, deaf));
}
