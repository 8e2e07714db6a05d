//! Clusters of processes, and runs of the command against them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ropewalk_client::Client;
use ropewalk_demo::check::{Place, check};
use ropewalk_demo::cluster::{self, Node};
use ropewalk_demo::flights::Flight;
use ropewalk_demo::publish::Ack;
use ropewalk_demo::read;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

/// Time limit for short operations on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ropewalk"))
}

/// Result of a run of the command.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Done {
    /// Its stdout; fails the test unless it succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Its one line on stderr; fails the test unless it exited with this code.
    #[track_caller]
    pub fn refused(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.err.trim_end().lines().count(), 1, "{self:?}");
        self.err
    }

    /// Its JSON lines; fails the test unless it succeeded.
    #[track_caller]
    pub fn lines(self) -> Vec<Value> {
        let parsed = self.ok();
        let parsed = parsed.lines().map(serde_json::from_str);
        parsed.collect::<Result<_, _>>().unwrap()
    }
}

/// Runs the command with this input.
pub async fn ropewalk_with(input: &[u8], args: &[&str]) -> Done {
    let mut child = Command::new(binary())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeding = tokio::spawn(async move {
        // A command that exits early does not read everything.
        let _ = stdin.write_all(&input).await;
    });
    let ended = timeout(PATIENCE, child.wait_with_output()).await;
    let output = ended.expect("the command does not end").unwrap();
    feeding.await.unwrap();
    Done {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the command.
pub async fn ropewalk(args: &[&str]) -> Done {
    ropewalk_with(b"", args).await
}

/// Nodes in a common temporary directory, which is deleted when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub ids: Vec<u64>,
    pub dir: TempDir,
}

impl Cluster {
    /// Starts a cluster of `count` nodes, with these further flags for each.
    pub async fn start(count: usize, flags: &[&str]) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        Cluster::start_in(dir, count, flags).await
    }

    pub async fn start_in(dir: TempDir, count: usize, flags: &[&str]) -> Cluster {
        let mut nodes = cluster::cluster(binary(), dir.path(), count).unwrap();
        for node in &mut nodes {
            node.flags.extend(flags.iter().map(ToString::to_string));
        }
        let ready = cluster::start_all(&mut nodes, PATIENCE).await.unwrap();
        let ids = ready.iter().map(|ready| ready.node_id).collect();
        Cluster { nodes, ids, dir }
    }

    pub fn addresses(&self) -> String {
        cluster::addresses(&self.nodes)
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.addresses()).await.unwrap()
    }

    /// Runs the command against these nodes.
    pub async fn run(&self, args: &[&str]) -> Done {
        self.run_with(b"", args).await
    }

    pub async fn run_with(&self, input: &[u8], args: &[&str]) -> Done {
        let addresses = self.addresses();
        let args = [&["--bootstrap", &addresses], args].concat();
        ropewalk_with(input, &args).await
    }

    /// Waits until every partition has a leader and all its replicas in sync.
    pub async fn healthy(&self) {
        let done = self.run(&["cluster", "health", "--wait", "60s"]).await;
        if done.code != Some(0) {
            let words: Vec<String> = self.nodes.iter().map(Node::last_words).collect();
            panic!("{done:?}\n{}", words.join("\n"));
        }
    }

    /// The topic's partitions as `partition list` prints them, once `holds` is true for each.
    pub async fn partitions_once(&self, topic: &str, holds: impl Fn(&Value) -> bool) -> Vec<Value> {
        let all = |rows: &[Value]| rows.iter().all(&holds);
        self.rows_once(&["partition", "list", topic], all).await
    }

    /// The nodes as `cluster status` prints them, once `holds` is true for them.
    pub async fn status_once(&self, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        self.rows_once(&["cluster", "status"], holds).await
    }

    async fn rows_once(&self, args: &[&str], holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let rows = self.run(args).await.lines();
            if holds(&rows) {
                return rows;
            }
            assert!(Instant::now() < until, "waited in vain: {rows:#?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Reads the topic, and compares it with the acknowledged records.
    pub async fn check(&self, topic: &str, partitions: u32, sent: &[Flight], acks: &[Ack]) {
        let client = self.client().await;
        let read = read::everything(&client, topic, partitions).await.unwrap();
        let acked: Vec<Place> = acks.iter().map(|ack| ack.place).collect();
        check(sent, &acked, &read).unwrap();
    }
}

/// Records with recurring keys.
pub fn keyed_records(count: usize) -> Vec<Flight> {
    let record = |number: usize| Flight {
        key: Some(format!("key-{}", number % 97)),
        value: format!("record {number} {}", "x".repeat(100)),
    };
    (0..count).map(record).collect()
}
