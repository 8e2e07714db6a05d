//! Consumer groups through the command: members that join, leave, freeze and are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures_util::StreamExt;
use ropewalk_demo::publish::Publisher;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Cluster, PATIENCE, binary, keyed_records};

const GROUP: &str = "g";
const TOPIC: &str = "t";
const PARTITIONS: u32 = 12;
const SESSION: Duration = Duration::from_millis(1_500);

/// Three nodes whose group members time out after [`SESSION`].
async fn cluster() -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("limits.toml");
    let limits = format!("[limits]\ngroup_session_ms = {}\n", SESSION.as_millis());
    fs::write(&config, limits).unwrap();
    let config = config.to_str().unwrap().to_owned();
    let cluster = Cluster::start_in(dir, 3, &["--config", &config]).await;
    let partitions = PARTITIONS.to_string();
    let create = ["topic", "create", TOPIC, "--partitions", &partitions];
    cluster.run(&create).await.ok();
    cluster
}

/// A member that prints into a file.
struct Member {
    child: Child,
    printed: PathBuf,
}

impl Member {
    fn start(cluster: &Cluster, name: &str) -> Member {
        let printed = cluster.dir.path().join(format!("{name}.jsonl"));
        let errors = cluster.dir.path().join(format!("{name}.err"));
        let addresses = cluster.addresses();
        let child = Command::new(binary())
            .args(["consume", TOPIC, "--group", GROUP, "--follow"])
            .args(["-o", "jsonl", "--bootstrap", &addresses])
            .stdin(Stdio::null())
            .stdout(File::create(&printed).unwrap())
            .stderr(File::create(errors).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Member { child, printed }
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        // The kill of the shell itself: a minimal system has no such program.
        let sent = Command::new("sh")
            .args(["-c", "kill $0 $1", signal, &pid])
            .status();
        assert!(sent.await.unwrap().success());
    }

    async fn stop(mut self) -> PathBuf {
        self.signal("-INT").await;
        let ended = timeout(PATIENCE, self.child.wait()).await;
        let ended = ended.expect("it does not end").unwrap();
        let errors = fs::read_to_string(self.printed.with_extension("err")).unwrap();
        assert!(ended.success(), "{errors}");
        self.printed
    }
}

/// The offsets that a member printed, by partition, in order. A line that a kill truncated does not count.
fn printed(path: &PathBuf) -> BTreeMap<u64, Vec<u64>> {
    let text = fs::read_to_string(path).unwrap();
    let mut offsets: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for line in text.lines() {
        let Ok(row) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let number = |name: &str| row[name].as_u64().unwrap();
        offsets
            .entry(number("partition"))
            .or_default()
            .push(number("offset"));
    }
    offsets
}

async fn lag(cluster: &Cluster) -> Option<u64> {
    let done = cluster.run(&["group", "lag", GROUP]).await;
    if done.code != Some(0) {
        return None;
    }
    let rows = done.lines();
    assert_eq!(rows.len(), PARTITIONS as usize);
    rows.iter().map(|row| row["lag_records"].as_u64()).sum()
}

async fn once_read(cluster: &Cluster) {
    let until = Instant::now() + PATIENCE;
    while lag(cluster).await != Some(0) {
        assert!(Instant::now() < until, "the group does not get to the end");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn once_members(cluster: &Cluster, count: usize) {
    let until = Instant::now() + PATIENCE;
    loop {
        let done = cluster.run(&["group", "describe", GROUP]).await;
        if done.code == Some(0) {
            let group = &done.lines()[0];
            let members = group["members"].as_array().unwrap().len();
            let shares = group["partitions"].as_array().unwrap();
            let settled =
                |share: &Value| share["member"].is_string() && share["next_member"].is_null();
            if members == count && shares.len() == PARTITIONS as usize && shares.iter().all(settled)
            {
                return;
            }
        }
        assert!(
            Instant::now() < until,
            "the group does not settle on {count} members"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_group_goes_on_where_it_stood_and_can_be_moved_and_deleted() {
    let cluster = cluster().await;
    let input: String = (0..500).map(|n| format!("key-{}={n}\n", n % 40)).collect();
    let produce = ["produce", TOPIC, "--key-separator", "="];
    cluster.run_with(input.as_bytes(), &produce).await.ok();
    let consume = ["consume", TOPIC, "--group", GROUP, "-o", "jsonl"];
    assert_eq!(cluster.run(&consume).await.lines().len(), 500);
    assert_eq!(cluster.run(&consume).await.lines().len(), 0);
    assert_eq!(lag(&cluster).await, Some(0));

    let listed = cluster.run(&["group", "list"]).await.lines();
    assert_eq!(
        (&listed[0]["group"], &listed[0]["members"]),
        (&GROUP.into(), &0.into())
    );
    let seek = ["group", "seek", GROUP, TOPIC, "--to", "beginning"];
    let moved = cluster.run(&seek).await.lines();
    assert_eq!(moved.len(), PARTITIONS as usize);
    assert_eq!(lag(&cluster).await, Some(500));
    let some = cluster
        .run(&[&consume[..], &["--count", "200"]].concat())
        .await
        .lines();
    assert_eq!(some.len(), 200);
    assert_eq!(lag(&cluster).await, Some(300));
    assert_eq!(cluster.run(&consume).await.lines().len(), 300);

    let beyond = ["group", "seek", GROUP, TOPIC, "--to", "@100000"];
    assert!(
        cluster
            .run(&beyond)
            .await
            .refused(1)
            .contains("past the end")
    );
    cluster.run(&["group", "delete", GROUP]).await.ok();
    let gone = cluster.run(&["group", "delete", GROUP]).await.refused(1);
    assert!(gone.contains("does not exist"), "{gone}");
    let listed = cluster.run(&["topic", "list"]).await.lines();
    assert_eq!(listed.len(), 1, "the cluster's own topic is not the user's");
}

#[tokio::test]
async fn a_topic_that_grows_is_read_to_the_end_and_keys_keep_their_order() {
    let cluster = cluster().await;
    let mut expected: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (round, partitions) in ["15", "40"].into_iter().enumerate() {
        let numbers = round as u64 * 1_000..(round as u64 + 1) * 1_000;
        let input: String = numbers
            .clone()
            .map(|n| format!("key-{}={n}\n", n % 97))
            .collect();
        for number in numbers {
            expected
                .entry(format!("key-{}", number % 97))
                .or_default()
                .push(number);
        }
        let produce = ["produce", TOPIC, "--key-separator", "="];
        cluster.run_with(input.as_bytes(), &produce).await.ok();
        let grow = ["topic", "grow", TOPIC, "--partitions", partitions];
        cluster.run(&grow).await.ok();
    }
    let fewer = ["topic", "grow", TOPIC, "--partitions", "3"];
    assert!(
        cluster
            .run(&fewer)
            .await
            .refused(1)
            .contains("cannot be lowered")
    );
    let last: String = (2_000..3_000)
        .map(|n| format!("key-{}={n}\n", n % 97))
        .collect();
    for number in 2_000..3_000 {
        expected
            .entry(format!("key-{}", number % 97))
            .or_default()
            .push(number);
    }
    cluster
        .run_with(last.as_bytes(), &["produce", TOPIC, "--key-separator", "="])
        .await
        .ok();

    let consume = ["consume", TOPIC, "--group", GROUP, "-o", "jsonl"];
    let mut read: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut used = BTreeSet::new();
    for row in cluster.run(&consume).await.lines() {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        read.entry(text("key"))
            .or_default()
            .push(text("value").parse().unwrap());
        used.insert(row["partition"].as_u64());
    }
    assert_eq!(read, expected);
    assert!(used.len() > 12, "no key moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_killed_frozen_and_joined_and_a_coordinator_killed_read_everything_in_order() {
    let mut cluster = cluster().await;
    let producer = cluster
        .client()
        .await
        .producer(TOPIC)
        .build()
        .await
        .unwrap();
    let mut publisher = Publisher::new(producer, 2_000);
    let records = keyed_records(12_000);
    let mut chunks = records.chunks(2_000);
    let mut next = || chunks.next().unwrap();

    let mut killed = Member::start(&cluster, "killed");
    let frozen = Member::start(&cluster, "frozen");
    let steady = Member::start(&cluster, "steady");
    publisher.publish(next()).await.unwrap();
    once_members(&cluster, 3).await;

    publisher.publish(next()).await.unwrap();
    killed.child.kill().await.unwrap();
    publisher.publish(next()).await.unwrap();
    once_members(&cluster, 2).await;

    frozen.signal("-STOP").await;
    publisher.publish(next()).await.unwrap();
    once_members(&cluster, 1).await;
    frozen.signal("-CONT").await;
    let joined = Member::start(&cluster, "joined");
    once_members(&cluster, 3).await;

    let group = cluster.run(&["group", "describe", GROUP]).await.lines();
    let coordinator = group[0]["coordinator"].as_u64().unwrap();
    let at = cluster
        .ids
        .iter()
        .position(|id| *id == coordinator)
        .unwrap();
    cluster.nodes[at].kill().await.unwrap();
    publisher.publish(next()).await.unwrap();
    once_members(&cluster, 3).await;
    cluster.nodes[at].start(PATIENCE).await.unwrap();
    publisher.publish(next()).await.unwrap();
    let acks = publisher.finish().await.unwrap();
    once_read(&cluster).await;

    let paths = [
        killed.printed,
        frozen.stop().await,
        steady.stop().await,
        joined.stop().await,
    ];
    let printed: Vec<_> = paths.iter().map(printed).collect();
    let mut read: BTreeSet<(u64, u64)> = BTreeSet::new();
    for offsets in &printed {
        for (partition, offsets) in offsets {
            read.extend(offsets.iter().map(|offset| (*partition, *offset)));
        }
    }
    assert_eq!(acks.len(), records.len());
    for ack in &acks {
        let place = (u64::from(ack.place.partition), ack.place.offset);
        assert!(
            read.contains(&place),
            "{place:?} was acknowledged, and nobody printed it"
        );
    }
    // Printed offsets increase. They go back only to the group's position at the time of the assignment.
    let again: usize = printed
        .iter()
        .flat_map(BTreeMap::values)
        .map(|offsets| offsets.windows(2).filter(|pair| pair[1] <= pair[0]).count())
        .sum();
    assert!(again <= 4 * PARTITIONS as usize, "{again} steps back");
    for offsets in printed.iter().flat_map(|member| member.iter()) {
        let (partition, offsets) = offsets;
        for pair in offsets.windows(2).filter(|pair| pair[1] > pair[0] + 1) {
            let between = pair[0] + 1..pair[1];
            assert!(
                between
                    .clone()
                    .all(|offset| read.contains(&(*partition, offset)))
            );
        }
    }
}

#[tokio::test]
async fn what_the_reader_of_a_pipe_left_unread_comes_again() {
    let cluster = cluster().await;
    let input: String = (0..500).map(|n| format!("key-{n}={n}\n")).collect();
    let produce = ["produce", TOPIC, "--key-separator", "="];
    cluster.run_with(input.as_bytes(), &produce).await.ok();
    let consume = format!(
        "exec {} consume {TOPIC} --group {GROUP} --follow -o jsonl --bootstrap {} | head -5",
        binary().display(),
        cluster.addresses()
    );
    let piped = Command::new("sh").args(["-c", &consume]).output();
    let piped = timeout(PATIENCE, piped).await.expect("it ends with head");
    let text = String::from_utf8(piped.unwrap().stdout).unwrap();
    assert_eq!(text.lines().count(), 5);
    // The command may still be leaving its group.
    let until = Instant::now() + PATIENCE;
    while cluster.run(&["group", "list"]).await.lines()[0]["members"] != 0 {
        assert!(Instant::now() < until, "it does not leave");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(lag(&cluster).await, Some(500));
    let consume = ["consume", TOPIC, "--group", GROUP, "-o", "jsonl"];
    assert_eq!(cluster.run(&consume).await.lines().len(), 500);
    assert_eq!(lag(&cluster).await, Some(0));
}

#[tokio::test]
async fn what_a_slow_reader_of_a_pipe_has_not_taken_comes_again() {
    reads_through_a_pipe_count_once_taken("sleep 2; head -c 600").await;
}

#[tokio::test]
async fn what_a_pipe_held_when_its_reader_ended_comes_again() {
    reads_through_a_pipe_count_once_taken("head -c 600").await;
}

/// Reads a group through a pipe whose reader takes 600 bytes of 36,000.
async fn reads_through_a_pipe_count_once_taken(reader: &str) {
    let cluster = cluster().await;
    let input: String = (0..3_000).map(|n| format!("{n:011}\n")).collect();
    cluster
        .run_with(input.as_bytes(), &["produce", TOPIC])
        .await
        .ok();
    let consume = format!(
        "{} consume {TOPIC} --group {GROUP} --follow --format '%v\\n' --bootstrap {} | ({reader})",
        binary().display(),
        cluster.addresses()
    );
    let piped = Command::new("sh").args(["-c", &consume]).output();
    let piped = timeout(PATIENCE, piped).await.expect("it ends with head");
    assert_eq!(piped.unwrap().stdout.len(), 600);
    let until = Instant::now() + PATIENCE;
    while cluster.run(&["group", "list"]).await.lines()[0]["members"] != 0 {
        assert!(Instant::now() < until, "it does not leave");
        sleep(Duration::from_millis(50)).await;
    }
    // Records within the last read of `head` may be lost.
    let consume = ["consume", TOPIC, "--group", GROUP, "-o", "jsonl"];
    let taken = 3_000 - cluster.run(&consume).await.lines().len();
    assert!(taken <= 8_192 / 12, "{taken} were taken for read");
}

#[tokio::test]
async fn without_follow_partitions_of_a_member_that_does_nothing_are_not_waited_for_without_end() {
    let cluster = cluster().await;
    let input: String = (0..500).map(|n| format!("key-{n}={n}\n")).collect();
    let produce = ["produce", TOPIC, "--key-separator", "="];
    cluster.run_with(input.as_bytes(), &produce).await.ok();
    let client = cluster.client().await;
    let mut idle = client
        .subscribe(GROUP)
        .topics([TOPIC])
        .rebalance_timeout(Duration::from_millis(500))
        .build()
        .await
        .unwrap();
    // Its records are never done.
    let _taken = idle.next().await.unwrap().unwrap();
    let consume = ["consume", TOPIC, "--group", GROUP, "-o", "jsonl"];
    let ended = timeout(PATIENCE, cluster.run(&consume)).await;
    let ended = ended.expect("it waits without end");
    assert!(
        ended.err.contains("stopped waiting for other members"),
        "{ended:?}"
    );
    let printed = ended.lines().len();
    assert!((1..500).contains(&printed), "{printed} records");
}

#[tokio::test]
async fn a_seek_shows_what_it_would_do_and_creates_no_group_by_mistake() {
    let cluster = cluster().await;
    let input: String = (0..200).map(|n| format!("key-{n}={n}\n")).collect();
    let produce = ["produce", TOPIC, "--key-separator", "="];
    cluster.run_with(input.as_bytes(), &produce).await.ok();
    let mistyped = ["group", "seek", "mistyped", TOPIC, "--to", "end"];
    let refused = cluster.run(&mistyped).await.refused(1);
    assert!(refused.contains("does not exist"), "{refused}");
    let planned = [&mistyped[..], &["--create", "--dry-run"]].concat();
    assert_eq!(
        cluster.run(&planned).await.lines().len(),
        PARTITIONS as usize
    );
    assert_eq!(cluster.run(&["group", "list"]).await.lines().len(), 0);
    let created = [&mistyped[..], &["--create"]].concat();
    let moved = cluster.run(&created).await.lines();
    let sum = |rows: &[Value], name: &str| -> u64 {
        rows.iter().filter_map(|row| row[name].as_u64()).sum()
    };
    assert_eq!(sum(&moved, "committed"), 200);
    let back = [
        "group",
        "seek",
        "mistyped",
        TOPIC,
        "--to",
        "beginning",
        "--dry-run",
    ];
    let planned = cluster.run(&back).await.lines();
    assert_eq!((sum(&planned, "committed"), sum(&planned, "to")), (200, 0));
    let again = cluster.run(&back).await.lines();
    assert_eq!(sum(&again, "committed"), 200, "nothing was moved");
}
