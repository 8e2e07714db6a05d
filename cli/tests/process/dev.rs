//! `ropewalk dev`, configured like a container: through its environment alone.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::{PATIENCE, binary, ropewalk, ropewalk_with};

/// A base port above which all ports of this number of nodes are free.
fn free_base_port(nodes: u16) -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        drop(taken);
        let mut ports = (port..).take(usize::from(nodes));
        if ports.all(|port| free(port) && port.checked_add(100).is_some_and(free)) {
            return port - 1;
        }
    }
}

struct Dev {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    bootstrap: String,
    dir: PathBuf,
}

impl Dev {
    async fn start(nodes: u16, dir: &Path, base_port: u16, fresh: &str) -> Dev {
        let mut child = Command::new(binary())
            .arg("dev")
            .env("ROPEWALK_NODES", nodes.to_string())
            .env("ROPEWALK_DATA_DIR", dir)
            .env("ROPEWALK_BASE_PORT", base_port.to_string())
            .env("ROPEWALK_FRESH", fresh)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
        let said = said.expect("a ready line");
        let ready: Value = serde_json::from_str(said.strip_prefix("ready ").unwrap()).unwrap();
        let count = usize::from(nodes);
        let nodes = ready["nodes"].as_array().unwrap();
        let address = |port: u16| format!("127.0.0.1:{port}");
        assert_eq!(nodes.len(), count, "{ready}");
        assert_eq!(nodes[0]["address"], address(base_port + 1));
        assert_eq!(nodes[0]["http"], address(base_port + 101));
        Dev {
            child,
            lines,
            bootstrap: address(base_port + 1),
            dir: dir.to_owned(),
        }
    }

    /// Sends Ctrl-C, after which the process must exit successfully without further output.
    async fn interrupt(mut self) {
        let pid = self.child.id().unwrap();
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -INT {pid}")])
            .status();
        assert!(sent.await.unwrap().success());
        let ended = timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        assert!(ended.success(), "{ended}");
        assert_eq!(self.lines.next_line().await.unwrap(), None);
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).await.unwrap();
        let kept = format!("ropewalk: stopped; data kept in {}\n", self.dir.display());
        assert_eq!(said, kept, "from its start to its end");
    }
}

#[tokio::test]
async fn a_cluster_set_up_by_its_environment_keeps_its_records_until_it_is_to_be_fresh() {
    let dir = tempfile::tempdir().unwrap();
    let base_port = free_base_port(1);
    let dev = Dev::start(1, dir.path(), base_port, "false").await;
    let create = ["topic", "create", "t", "--replicas", "1"];
    let to = ["--bootstrap", &dev.bootstrap];
    ropewalk(&[&to[..], &create].concat()).await.ok();
    ropewalk_with(b"one\ntwo\n", &[&to[..], &["produce", "t"]].concat())
        .await
        .ok();
    dev.interrupt().await;

    let dev = Dev::start(1, dir.path(), base_port, "false").await;
    let to = ["--bootstrap", &dev.bootstrap];
    let read = ropewalk(&[&to[..], &["consume", "t"]].concat()).await;
    assert_eq!(read.lines().len(), 2);
    dev.interrupt().await;

    let dev = Dev::start(1, dir.path(), base_port, "true").await;
    let to = ["--bootstrap", &dev.bootstrap];
    let topics = ropewalk(&[&to[..], &["topic", "list"]].concat()).await;
    assert_eq!(topics.lines().len(), 0);
    dev.interrupt().await;
}

#[tokio::test]
async fn three_nodes_start_serve_a_group_and_stop_without_a_word_of_warning() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(3, dir.path(), free_base_port(3), "false").await;
    let to = ["--bootstrap", &dev.bootstrap];
    let run = async |args: &[&str]| ropewalk(&[&to[..], args].concat()).await;
    run(&["topic", "create", "flights"]).await.ok();
    run(&["produce", "flights", "-k", "BER", "-v", "landed"])
        .await
        .ok();
    // The first member of the first group triggers the creation of `_groups`.
    run(&["consume", "flights", "--group", "g"]).await.ok();
    run(&["cluster", "health"]).await.ok();
    dev.interrupt().await;
}
