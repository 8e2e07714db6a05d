//! Scrapers: many of them, slow ones, and a node with a large page.

use std::time::Duration;

use ropewalk_node::Config;
use ropewalk_node::env::{Connection, Net, TcpNet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::*;

const CROWD: usize = 100;
/// Fewer than the limit on responses sent at a time.
const DEAF: usize = 8;
/// The answers to this number of requests fit in no buffer if the scraper reads none.
const PIPELINED: usize = 600;
/// Partitions of a node that has many, and can start in a test. `ops/collect/partitions.rs` tests a page of
/// 5,000.
const MANY: u32 = 200;
/// Maximum time until all of them have leaders, on a slow machine.
const STARTED_WITHIN: Duration = Duration::from_secs(120);
/// Maximum time for their page on such a machine.
const AT_ONCE: Duration = Duration::from_secs(5);

async fn send(address: &str, request: &[u8]) -> Connection {
    let mut connection = TcpNet.connect(address).await.expect("a connection");
    connection.write_all(request).await.expect("taken");
    connection
}

/// The status line, headers and body of one scrape.
async fn scrape(address: &str) -> String {
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut connection = send(address, request).await;
    let mut page = Vec::new();
    let read = timeout(PATIENCE, connection.read_to_end(&mut page)).await;
    read.expect("an answer in time").expect("an answer");
    String::from_utf8(page).expect("text")
}

fn value(page: &str, name: &str) -> f64 {
    let mut values = page.lines().filter_map(|line| line.strip_prefix(name));
    let value = values.find_map(|value| value.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {page}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_scrapers_is_served_or_told_to_wait_and_holds_nobody_up() {
    let mut node = Node::start().await;
    let http = node.config.http.clone().expect("a port");
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        let http = http.clone();
        crowd.spawn(async move { scrape(&http).await });
    }
    let appended = node.produce(0, batch((-1, -1, -1), &[b"meanwhile"])).await;
    assert_eq!(appended, Ok(1));
    let (mut served, mut refused) = (0, 0);
    while let Some(page) = crowd.join_next().await {
        let page = page.expect("no panic");
        match page.split_whitespace().nth(1) {
            Some("200") => {
                assert!(page.ends_with("# EOF\n"), "half a page");
                served += 1;
            }
            Some("503") => {
                assert!(page.contains("scrapes are limited"), "{page}");
                refused += 1;
            }
            _ => panic!("{page}"),
        }
    }
    assert!(served > 0);
    assert_eq!(served + refused, CROWD);
    // A page may be half a second old.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let page = scrape(&http).await;
    let counted = value(&page, "ropewalk_scrapes_refused_total ");
    assert_eq!(counted, refused as f64);
    node.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scrapers_that_never_read_keep_neither_producers_nor_other_scrapers_waiting() {
    let node = Node::start().await;
    let http = node.config.http.clone().expect("a port");
    let ask = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(PIPELINED);
    let mut deaf = Vec::new();
    for _ in 0..DEAF {
        deaf.push(send(&http, &ask).await);
    }
    let served = async {
        while !scrape(&http).await.starts_with("HTTP/1.1 200") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, served).await.expect("a page in time");
    node.still_serves().await;
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_many_partitions_is_scraped_in_no_time() {
    let all_shown = |config: &mut Config| config.limits.metrics_partitions = MANY as usize;
    let mut node = Node::start_with(all_shown).await;
    node.create_topic("many", MANY - 1).await.expect("a topic");
    let http = node.config.http.clone().expect("a port");
    let led = async {
        while value(&scrape(&http).await, "ropewalk_leaders ") < f64::from(MANY) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(STARTED_WITHIN, led).await.expect("all are led");
    let began = Instant::now();
    let page = scrape(&http).await;
    let took = began.elapsed();
    println!("{} bytes in {took:?}", page.len());
    let rows = |name: &str| page.lines().filter(|line| line.starts_with(name)).count();
    for name in ["high_watermark", "log_start_offset", "in_sync_replicas"] {
        let name = format!("ropewalk_partition_{name}{{topic=\"many\"");
        assert_eq!(rows(&name), MANY as usize - 1, "{name}");
    }
    assert!(took < AT_ONCE, "{took:?}");
    assert!(page.len() < 300 * MANY as usize + 64_000, "{}", page.len());
    node.still_serves().await;
}
