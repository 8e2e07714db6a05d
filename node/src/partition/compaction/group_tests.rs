//! Compaction of a partition with several replicas, on the cluster of `test_cluster`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ropewalk_proto::batch::{BatchBuilder, BatchView, Compression};
use ropewalk_proto::command::COMPACTION_SINCE_VERSION;
use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1::{Cleanup, TopicSettings};
use ropewalk_raft_store::types::Entry;

use crate::partition::cluster_tests::{produce, spec};
use crate::partition::test_cluster::{
    GROUP, PATIENCE, TOPIC, TestCluster, eventually, place, settings,
};
use crate::partition::{FetchSpec, Partition, Position};

const KEYS: u64 = 7;
const HORIZON_MS: i64 = 60_000;

fn compacted() -> TopicSettings {
    TopicSettings {
        segment_bytes: 4_000,
        cleanup: Cleanup::Compact as i32,
        delete_horizon_ms: HORIZON_MS,
        min_dirty_percent: 1,
        ..settings()
    }
}

/// A batch of one producer with two records; in every third batch, the second record has no value.
fn batch(number: u64) -> Bytes {
    let codec = Compression::ALL[(number % 5) as usize];
    let mut batch = BatchBuilder::new(codec, 1 << 20);
    let value = format!("value {number} {}", "long ".repeat(40));
    for (place, key) in [number % KEYS, (number * 3 + 1) % KEYS]
        .into_iter()
        .enumerate()
    {
        let key = format!("key {key}");
        let has_value = place == 0 || !number.is_multiple_of(3);
        let value = has_value.then_some(value.as_bytes());
        let timestamp_ms = 1_000 + number as i64;
        assert!(
            batch
                .push(Some(key.as_bytes()), value, &[], timestamp_ms)
                .unwrap()
        );
    }
    batch.set_producer(5, 0, (number * 2) as i32);
    batch.build()
}

type Records = BTreeMap<u64, (Bytes, Option<Bytes>)>;

fn add(records: &mut Records, base_offset: u64, batch: &Bytes) -> u64 {
    let batch = BatchView::trusted(batch.clone()).unwrap();
    batch.check_crc().unwrap();
    for record in batch.records(1 << 20).unwrap() {
        let offset = base_offset + record.offset_delta as u64;
        records.insert(offset, (record.key.unwrap(), record.value));
    }
    base_offset + u64::from(batch.offset_count())
}

/// Returns the last value of each key, without deleted ones.
fn table(records: &Records) -> BTreeMap<Bytes, Bytes> {
    let mut table = BTreeMap::new();
    for (key, value) in records.values() {
        match value {
            Some(value) => table.insert(key.clone(), value.clone()),
            None => table.remove(key),
        };
    }
    table
}

/// Produces the batches of these numbers, and records them in `all`.
async fn write(cluster: &TestCluster, numbers: std::ops::Range<u64>, all: &mut Records) {
    for number in numbers {
        let leader = cluster.leader().await;
        let appended = produce(&leader, batch(number)).await.unwrap();
        assert_eq!(appended.base_offset, number * 2, "offsets go on");
        add(all, appended.base_offset, &batch(number));
    }
}

/// Reads everything from the beginning, in small fetches; returns the records and the end offset.
async fn read(leader: &Arc<Partition>) -> (Records, u64) {
    let (mut records, mut next) = (Records::new(), 0);
    loop {
        let small = FetchSpec {
            max_bytes: 2_000,
            ..spec(next)
        };
        let fetched = leader.fetch(small).await.unwrap();
        for (base_offset, _, batch) in &fetched.batches {
            next = add(&mut records, *base_offset, batch);
        }
        if fetched.batches.is_empty() {
            return (records, next);
        }
    }
}

/// Waits until all replicas have carried out the requested compaction, and it covers all segments.
async fn settled(cluster: &TestCluster, nodes: &[u64], tombstones_too: bool) {
    let next_offset = cluster.leader().await.replica.view.machine().next_offset();
    eventually("compaction", || {
        nodes.iter().all(|node| {
            let replica = cluster.nodes[&NodeId(*node)].partitions.get(GROUP);
            let Some(replica) = replica else {
                return false;
            };
            let machine = replica.replica.view.machine();
            let (target, end) = (machine.compaction(), machine.last_boundary());
            let done = *replica.compacted.lock();
            let gone = !tombstones_too || done.tombstones == 0;
            let all = machine.next_offset() == next_offset;
            all && target.to_offset == end.next_offset && done.has_done(&target) && gone
        })
    })
    .await;
}

async fn entries(replica: &Arc<Partition>) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    loop {
        let next = all.last().map_or(0, |last| last.log_id.index + 1);
        let more = replica
            .replica
            .view
            .entries(next..u64::MAX, usize::MAX)
            .await
            .unwrap();
        if more.is_empty() {
            return all;
        }
        all.extend(more);
    }
}

/// Checks that the log entries of all replicas are equal, as far as all have them.
async fn are_equal(cluster: &TestCluster, nodes: &[u64]) {
    let mut logs = Vec::new();
    for node in nodes {
        logs.push(entries(&cluster.replica(*node)).await);
    }
    let shortest = logs.iter().map(Vec::len).min().unwrap();
    assert!(shortest > 0);
    for log in &logs {
        assert_eq!(log[..shortest], logs[0][..shortest]);
    }
}

#[tokio::test]
async fn every_replica_keeps_the_last_value_of_each_key_and_all_are_equal() {
    let mut cluster = TestCluster::start_with(4, compacted(), 0).await;
    let mut all = Records::new();
    write(&cluster, 0..100, &mut all).await;
    settled(&cluster, &[1, 2, 3], false).await;
    are_equal(&cluster, &[1, 2, 3]).await;
    let leader = cluster.leader().await;
    let (kept, next) = read(&leader).await;
    assert_eq!(next, 200);
    assert_eq!(table(&kept), table(&all));
    assert!(
        kept.len() < all.len() / 2,
        "{} of {}",
        kept.len(),
        all.len()
    );
    let unchanged = |kept: &Records| kept.iter().all(|(offset, record)| all[offset] == *record);
    assert!(unchanged(&kept));
    // Each key in an ended segment still has a record, if only a tombstone.
    let end = leader.replica.view.machine().compaction().to_offset;
    for (key, _) in all.range(..end).map(|(_, record)| record) {
        assert!(kept.values().any(|(kept, _)| kept == key));
    }
    // A duplicate is still recognized, even if all its records are gone, and a lookup by time still works.
    let again = produce(&leader, batch(99)).await.unwrap();
    assert_eq!((again.base_offset, again.duplicate), (198, true));
    let listed = leader
        .list_offset(Position::AtOrAfter(1_010))
        .await
        .unwrap();
    let first = kept.keys().find(|offset| **offset >= 20).unwrap();
    assert_eq!(listed.offset, *first);

    // A node that was away while the log went on, and a new one.
    let away = (1..=3)
        .find(|node| NodeId(*node) != leader.host.node_id)
        .unwrap();
    let killed = cluster.kill(NodeId(away)).await;
    write(&cluster, 100..160, &mut all).await;
    let there: Vec<u64> = (1..=3).filter(|node| *node != away).collect();
    settled(&cluster, &there, false).await;
    cluster.come_back(NodeId(away), killed.disk).await;
    cluster.change_partition(|partition| partition.replicas.push(place(4)));
    settled(&cluster, &[1, 2, 3, 4], false).await;
    are_equal(&cluster, &[1, 2, 3, 4]).await;
    let (kept, next) = read(&cluster.leader().await).await;
    assert_eq!(next, 320);
    assert_eq!(table(&kept), table(&all));
    cluster.stop().await;
}

#[tokio::test]
async fn records_without_a_value_go_after_the_horizon_and_not_while_a_replica_is_away() {
    let mut cluster = TestCluster::start_with(3, compacted(), 0).await;
    let mut all = Records::new();
    write(&cluster, 0..60, &mut all).await;
    settled(&cluster, &[1, 2, 3], false).await;
    let tombstones = |partition: &Arc<Partition>| partition.compacted.lock().tombstones;
    let leader = cluster.leader().await;
    assert!(tombstones(&leader) > 0);

    let away = (1..=3)
        .find(|node| NodeId(*node) != leader.host.node_id)
        .unwrap();
    let (claims, to) = (&leader.claims, leader.compacted.lock().to_offset);
    eventually("word from who is to go of what it has done", || {
        claims.of(place(away).replica) >= to
    })
    .await;
    let killed = cluster.kill(NodeId(away)).await;
    // Its earlier report stays true, but it has not compacted the new part.
    write(&cluster, 60..160, &mut all).await;
    let there: Vec<u64> = (1..=3).filter(|node| *node != away).collect();
    settled(&cluster, &there, false).await;
    let leader = cluster.leader().await;
    let passed = leader.replica.view.machine().compaction().waiting_offset;
    cluster.clock.0.fetch_add(HORIZON_MS, Ordering::Relaxed);
    eventually("tombstones gone as far as all have passed them", || {
        leader.replica.view.machine().compaction().tombstones_below == passed
    })
    .await;
    cluster.clock.0.fetch_add(HORIZON_MS, Ordering::Relaxed);
    settled(&cluster, &there, false).await;
    // Long enough for the leader to ask, if it did.
    for _ in 0..20 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(
            leader.replica.view.machine().compaction().tombstones_below,
            passed
        );
    }
    assert!(tombstones(&leader) > 0);

    cluster.come_back(NodeId(away), killed.disk).await;
    settled(&cluster, &[1, 2, 3], true).await;
    are_equal(&cluster, &[1, 2, 3]).await;
    let leader = cluster.leader().await;
    let end = leader.replica.view.machine().compaction().to_offset;
    let (kept, _) = read(&leader).await;
    assert!(kept.range(..end).all(|(_, (_, value))| value.is_some()));
    assert_eq!(table(&kept), table(&all));
    cluster.stop().await;
}

#[tokio::test]
async fn a_topic_that_is_compacted_takes_no_record_without_a_key_and_is_not_trimmed() {
    let short = TopicSettings {
        retention_ms: 1,
        retention_bytes: 1,
        ..compacted()
    };
    let cluster = TestCluster::start(3, short).await;
    let leader = cluster.leader().await;
    let mut keyless = BatchBuilder::new(Compression::Zstd, 1 << 20);
    assert!(keyless.push(Some(b"key"), Some(b"value"), &[], 0).unwrap());
    assert!(keyless.push(None, Some(b"value"), &[], 0).unwrap());
    let refused = leader.propose(0, keyless.build()).await.err();
    let refused = refused.expect("a refusal");
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    assert!(refused.message.contains("has no key"), "{refused}");
    let mut all = Records::new();
    write(&cluster, 0..30, &mut all).await;
    cluster.clock.0.fetch_add(1_000, Ordering::Relaxed);
    let within = tokio::time::timeout(PATIENCE, settled(&cluster, &[1, 2, 3], false));
    within.await.expect("compaction");
    assert_eq!(leader.replica.view.machine().log_start(), 0);
    let (kept, next) = read(&leader).await;
    assert_eq!((table(&kept), next), (table(&all), 60));
    cluster.stop().await;
}

/// Advances time until all tombstones are gone, also those that a later compaction reached.
async fn tombstones_go(cluster: &TestCluster, nodes: &[u64]) {
    eventually("the end of records without a value", || {
        cluster
            .clock
            .0
            .fetch_add(HORIZON_MS / 10, Ordering::Relaxed);
        nodes.iter().all(|node| {
            let done = *cluster.replica(*node).compacted.lock();
            done.to_offset > 0 && done.tombstones == 0
        })
    })
    .await;
}

/// Checks, for long enough, that the leader does not ask to remove tombstones.
async fn asks_for_no_tombstones(leader: &Arc<Partition>) {
    for _ in 0..20 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(
            leader.replica.view.machine().compaction().tombstones_below,
            0
        );
    }
}

#[tokio::test]
async fn records_without_a_value_wait_for_a_replica_that_only_learns_too() {
    let mut cluster = TestCluster::start_with(4, compacted(), 0).await;
    let newcomer = cluster.kill(NodeId(4)).await;
    let mut all = Records::new();
    write(&cluster, 0..60, &mut all).await;
    settled(&cluster, &[1, 2, 3], false).await;
    let leader = cluster.leader().await;
    assert!(leader.compacted.lock().tombstones > 0);
    cluster.change_partition(|partition| partition.replicas.push(place(4)));
    eventually("a learner", || {
        leader.with_metrics(|metrics| {
            let membership = metrics.membership_config.membership();
            membership.nodes().count() == 4 && membership.voter_ids().count() == 3
        })
    })
    .await;
    cluster.clock.0.fetch_add(HORIZON_MS, Ordering::Relaxed);
    asks_for_no_tombstones(&leader).await;
    cluster.come_back(NodeId(4), newcomer.disk).await;
    eventually("a replica on the new node", || {
        cluster.nodes[&NodeId(4)].partitions.get(GROUP).is_some()
    })
    .await;
    tombstones_go(&cluster, &[1, 2, 3, 4]).await;
    are_equal(&cluster, &[1, 2, 3, 4]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_replica_whose_disk_is_full_compacts_nothing_and_claims_nothing() {
    let cluster = TestCluster::start_with(3, settings(), 0).await;
    let mut all = Records::new();
    write(&cluster, 0..60, &mut all).await;
    let leader = cluster.leader().await;
    let full = (1..=3)
        .find(|node| NodeId(*node) != leader.host.node_id)
        .unwrap();
    let replica = cluster.replica(full);
    cluster.nodes[&NodeId(full)].disk.set_free_bytes(0);
    eventually("a full disk", || !replica.host.is_writable()).await;
    cluster.change(|view| view.topics.get_mut(TOPIC).unwrap().settings = compacted());
    let there: Vec<u64> = (1..=3).filter(|node| *node != full).collect();
    eventually("a segment that ends", || {
        leader.replica.view.machine().compaction().to_offset > 0
    })
    .await;
    settled(&cluster, &there, false).await;
    cluster.clock.0.fetch_add(HORIZON_MS, Ordering::Relaxed);
    asks_for_no_tombstones(&leader).await;
    assert_eq!(replica.compacted.lock().to_offset, 0);
    assert_eq!(leader.claims.of(place(full).replica), 0);
    cluster.nodes[&NodeId(full)].disk.set_free_bytes(u64::MAX);
    tombstones_go(&cluster, &[1, 2, 3]).await;
    are_equal(&cluster, &[1, 2, 3]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn nothing_is_asked_for_while_a_node_would_stop_at_it() {
    let cluster = TestCluster::start_with(1, compacted(), 0).await;
    let understood = |version| cluster.change(|view| view.understood = version);
    understood(COMPACTION_SINCE_VERSION - 1);
    let mut all = Records::new();
    write(&cluster, 0..60, &mut all).await;
    let leader = cluster.leader().await;
    assert!(leader.replica.view.machine().segments().count() > 0);
    for _ in 0..20 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(leader.replica.view.machine().compaction().to_offset, 0);
    }
    understood(COMPACTION_SINCE_VERSION);
    settled(&cluster, &[1], false).await;
    cluster.stop().await;
}
