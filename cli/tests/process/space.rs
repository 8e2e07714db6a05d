//! Full and failing disks under real processes. Writes are refused with a clear error, and reads continue.
//! Once the disk recovers, writes resume without an operator.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ropewalk_demo::flights::Flight;
use ropewalk_demo::publish::Publisher;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::disks::{Filler, Place, enter, free_bytes, mount, say_loudly};
use crate::support::{Cluster, PATIENCE, keyed_records};

const NODES: usize = 3;
const PARTITIONS: u32 = 3;
const PER_SECOND: u32 = 1_000;
const FAILED: &str = "disk failed: writes are refused";
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Three nodes with this free-space floor, and three topics: `kept` with records, `refused` and `t` without.
struct Scene {
    cluster: Cluster,
    kept: Vec<Flight>,
    kept_acks: Vec<ropewalk_demo::publish::Ack>,
    pids: Vec<Option<u32>>,
}

impl Scene {
    async fn start(dir: TempDir, floor_bytes: u64) -> Scene {
        let config = dir.path().join("node.toml");
        let limits = format!(
            "[limits]\nfree_space_floor_bytes = {floor_bytes}\ndatabase_bytes = '64MiB'\nlog_tail_bytes = '8MiB'\n"
        );
        fs::write(&config, limits).unwrap();
        let flags = ["--config", config.to_str().unwrap()];
        let cluster = Cluster::start_in(dir, NODES, &flags).await;
        for topic in ["kept", "refused", "t"] {
            let partitions = PARTITIONS.to_string();
            let create = ["topic", "create", topic, "--partitions", &partitions];
            cluster.run(&create).await.ok();
        }
        let kept = keyed_records(1_000);
        let mut publisher = publisher(&cluster, "kept").await;
        publisher.publish(&kept).await.unwrap();
        let kept_acks = publisher.finish().await.unwrap();
        let pids = cluster.nodes.iter().map(|node| node.pid()).collect();
        Scene {
            cluster,
            kept,
            kept_acks,
            pids,
        }
    }

    fn data_dirs(&self) -> Vec<PathBuf> {
        let nodes = self.cluster.nodes.iter();
        nodes.map(|node| node.data_dir()).collect()
    }

    /// Checks that the earlier records can still be read.
    async fn reads_go_on(&self) {
        let (kept, acks) = (&self.kept, &self.kept_acks);
        let reading = self.cluster.check("kept", PARTITIONS, kept, acks);
        timeout(PATIENCE, reading).await.unwrap();
    }

    /// Error of the command for a publish now.
    async fn refused(&self) -> String {
        let lines: String = (0..100).map(|key| format!("{key}:lost?\n")).collect();
        let produce = [
            "produce",
            "refused",
            "--timeout",
            "2s",
            "--key-separator",
            ":",
        ];
        let done = self.cluster.run_with(lines.as_bytes(), &produce).await;
        assert_eq!(done.code, Some(1), "{done:?}");
        done.err
    }

    /// Checks that everything is as before, in the same processes, and that no acknowledged record is
    /// missing.
    async fn is_well(&self, sent: &[Flight], acks: &[ropewalk_demo::publish::Ack]) {
        self.cluster.healthy().await;
        self.reads_go_on().await;
        self.cluster.check("t", PARTITIONS, sent, acks).await;
        let pids: Vec<Option<u32>> = self.cluster.nodes.iter().map(|node| node.pid()).collect();
        assert_eq!(pids, self.pids);
        for node in &self.cluster.nodes {
            let log = fs::read_to_string(node.log_path()).unwrap();
            assert!(!log.contains("panicked"), "{}", node.last_words());
        }
    }

    /// Waits until at least `count` nodes have logged this text.
    async fn said_by(&self, count: usize, what: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let logs = self.cluster.nodes.iter().map(|node| node.log_path());
            let says = |path: &PathBuf| fs::read_to_string(path).unwrap().contains(what);
            if logs.filter(says).count() >= count {
                return;
            }
            assert!(
                Instant::now() < until,
                "nobody says {what:?}; {}",
                self.cluster.nodes[0].last_words()
            );
            sleep(LOOK_EVERY).await;
        }
    }
}

async fn publisher(cluster: &Cluster, topic: &str) -> Publisher {
    let client = cluster.client().await;
    let producer = client.producer(topic).build().await.unwrap();
    Publisher::new(producer, PER_SECOND)
}

/// More bytes than the write-ahead logs have already reserved.
fn large_records() -> Vec<Flight> {
    let record = |number: usize| Flight {
        key: Some(format!("key-{}", number % 97)),
        value: format!("record {number} {}", "x".repeat(16 << 10)),
    };
    (0..1_500).map(record).collect()
}

fn fill(dirs: &[PathBuf], mib: usize) -> Vec<Filler> {
    let fill = |dir: &PathBuf| Filler::take(dir, mib);
    dirs.iter().map(fill).collect()
}

/// A directory for a cluster, with a file system of `mib` MiB for each of the first `small` nodes.
fn folder_with_disks(small: usize, mib: usize) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for node in 0..small {
        mount(dir.path(), node, mib);
    }
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_floor_writes_are_refused_and_come_back_by_themselves_with_the_space() {
    const MIB: u64 = 1 << 20;
    let (dir, floor, filler_mib) = match enter(
        "space::below_the_floor_writes_are_refused_and_come_back_by_themselves_with_the_space",
    ) {
        Place::Done => return,
        Place::Inside => (folder_with_disks(NODES, 128), 48 * MIB, 100),
        Place::Nowhere(why) => {
            say_loudly(&format!(
                "nodes on disks of their own ({why}); the floor is tested on the disk all share"
            ));
            let dir = tempfile::tempdir().unwrap();
            let free = free_bytes(dir.path());
            (dir, free.saturating_sub(192 * MIB), 128)
        }
    };
    let scene = Scene::start(dir, floor).await;
    let fillers = fill(&scene.data_dirs(), filler_mib);
    scene.said_by(NODES, "disk is nearly full").await;

    let error = scene.refused().await;
    assert!(error.contains("disk is full"), "{error}");
    scene.reads_go_on().await;
    let records = keyed_records(500);
    let mut publisher = publisher(&scene.cluster, "t").await;
    publisher.publish(&records).await.unwrap();

    fillers.into_iter().for_each(Filler::give_back);
    let acks = timeout(PATIENCE, publisher.finish())
        .await
        .unwrap()
        .unwrap();
    scene.is_well(&records, &acks).await;
    // The outcome was reported as known, which must be true.
    scene.cluster.check("refused", PARTITIONS, &[], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_filled_to_the_last_byte_fail_and_are_opened_again_when_space_returns() {
    if !inside("space::disks_filled_to_the_last_byte_fail_and_are_opened_again_when_space_returns")
    {
        return;
    }
    let scene = Scene::start(folder_with_disks(NODES, 64), 0).await;
    let records = large_records();
    let mut publisher = publisher(&scene.cluster, "t").await;
    let fillers = fill(&scene.data_dirs(), usize::MAX);
    publisher.publish(&records).await.unwrap();
    // Two of three nodes have failed, so there is no longer a majority.
    scene.said_by(2, FAILED).await;

    // Nothing can be committed, so there is no lasting leader. The nodes have logged the reason.
    let error = scene.refused().await;
    assert!(error.contains("disk") || error.contains("lead"), "{error}");

    fillers.into_iter().for_each(Filler::give_back);
    let acks = timeout(PATIENCE, publisher.finish())
        .await
        .unwrap()
        .unwrap();
    scene.is_well(&records, &acks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_full_disk_of_three_stops_nobody_and_comes_back() {
    if !inside("space::one_full_disk_of_three_stops_nobody_and_comes_back") {
        return;
    }
    let scene = Scene::start(folder_with_disks(1, 64), 0).await;
    let records = large_records();
    let mut publisher = publisher(&scene.cluster, "t").await;
    let fillers = fill(&scene.data_dirs()[..1], usize::MAX);
    publisher.publish(&records).await.unwrap();
    let acks = timeout(PATIENCE, publisher.finish())
        .await
        .unwrap()
        .unwrap();
    scene.said_by(1, FAILED).await;
    scene.reads_go_on().await;

    fillers.into_iter().for_each(Filler::give_back);
    scene.is_well(&records, &acks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_makes_the_node_step_down_and_open_its_disk_again() {
    let scene = Scene::start(tempfile::tempdir().unwrap(), 0).await;
    let pid = scene.pids[0].unwrap();
    let trace = scene.cluster.dir.path().join("strace");
    let records = keyed_records(4_000);
    let mut publisher = publisher(&scene.cluster, "t").await;
    let (published, strace) = tokio::join!(publisher.publish(&records), failing_sync(pid, &trace));
    published.unwrap();
    let acks = timeout(PATIENCE, publisher.finish())
        .await
        .unwrap()
        .unwrap();
    let Some(mut strace) = strace else {
        return say_loudly("a sync that fails: strace is not here, or may not trace");
    };
    scene.said_by(1, FAILED).await;
    strace.kill().await.unwrap();
    let log = fs::read_to_string(scene.cluster.nodes[0].log_path()).unwrap();
    assert!(log.contains(FAILED), "another node's disk failed");
    scene.said_by(1, "the node starts again on it").await;
    scene.is_well(&records, &acks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_cannot_be_written_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("node-1");
    fs::create_dir_all(&node).unwrap();
    std::os::unix::fs::symlink("/dev/full", node.join("log")).unwrap();
    let cluster = Cluster::start_in(dir, 1, &[]).await;
    let create = [
        "topic",
        "create",
        "t",
        "--partitions",
        "3",
        "--replicas",
        "1",
    ];
    cluster.run(&create).await.ok();
    let records = keyed_records(200);
    let mut publisher = publisher(&cluster, "t").await;
    publisher.publish(&records).await.unwrap();
    let acks = publisher.finish().await.unwrap();
    cluster.check("t", PARTITIONS, &records, &acks).await;
}

/// Makes the next sync of the process fail, and waits for it. None if this machine can't do that.
async fn failing_sync(pid: u32, trace: &Path) -> Option<tokio::process::Child> {
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-p", &pid.to_string(), "-o"])
        .arg(trace)
        .args(["-e", "trace=fdatasync,fsync"])
        .args(["-e", "inject=fdatasync,fsync:error=EIO:when=1"])
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true);
    let mut strace = strace.spawn().ok()?;
    let until = Instant::now() + PATIENCE;
    loop {
        if fs::read_to_string(trace).is_ok_and(|text| text.contains("INJECTED")) {
            return Some(strace);
        }
        if strace.try_wait().unwrap().is_some() || Instant::now() > until {
            return None;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Returns true inside the namespace. The test needs its own disks, and reports if this machine can't provide
/// them.
fn inside(test: &str) -> bool {
    match enter(test) {
        Place::Inside => true,
        Place::Done => false,
        Place::Nowhere(why) => {
            say_loudly(&format!("{test}: no file system can be mounted ({why})"));
            false
        }
    }
}
