//! Guarantees of partitions, seen from outside, on the cluster of `test_cluster`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ropewalk_machines::Machine;
use ropewalk_machines::meta::MetadataImage;
use ropewalk_proto::batch::{BatchBuilder, Compression};
use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1::{SettleReplicas, TopicSettings, meta_command};

use super::test_cluster::{GROUP, PATIENCE, TOPIC, TestCluster, eventually, place, settings};
use super::*;

pub(super) fn batch(producer: (i64, i16, i32), values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    for (n, value) in values.iter().enumerate() {
        assert!(
            builder
                .push(Some(b"key"), Some(value), &[], 1_000 + n as i64)
                .unwrap()
        );
    }
    builder.set_producer(producer.0, producer.1, producer.2);
    builder.build()
}

pub(super) fn anonymous(values: &[&[u8]]) -> Bytes {
    batch((-1, -1, -1), values)
}

/// Sends a batch, and retries while a leader on a busy machine waits for its followers.
pub(super) async fn produce(
    partition: &Arc<Partition>,
    batch: Bytes,
) -> Result<Appended, ropewalk_proto::error::WireError> {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        match partition.propose(0, batch.clone()).await?.await {
            Err(error)
                if error.code == ErrorCode::NoLeader && tokio::time::Instant::now() < until =>
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            answered => return answered,
        }
    }
}

pub(super) fn spec(offset: u64) -> FetchSpec {
    FetchSpec {
        offset,
        max_bytes: 1 << 20,
        max_wait: Duration::ZERO,
        last_epoch: 0,
    }
}

/// Reads all batches straight from one replica.
pub(super) async fn contents(partition: &Arc<Partition>) -> Vec<(u64, u64, Bytes)> {
    let (start, applied) = {
        let machine = partition.replica.view.machine();
        (machine.locate(machine.log_start()), machine.applied())
    };
    let Some(start) = start else {
        return Vec::new();
    };
    let mut walk = cursor::LogCursor::new(partition, start, applied);
    let mut all = Vec::new();
    loop {
        let found = walk.step(1 << 20).await.unwrap();
        if found.is_empty() {
            return all;
        }
        all.extend(
            found
                .into_iter()
                .map(|one| (one.base_offset, one.epoch, one.batch.into_bytes())),
        );
    }
}

#[tokio::test]
async fn what_was_produced_is_fetched_as_it_came_and_only_from_the_leader() {
    let cluster = TestCluster::start(3, settings()).await;
    let leader = cluster.leader().await;
    let (first, second) = (anonymous(&[b"a", b"b"]), anonymous(&[b"c"]));
    assert_eq!(
        produce(&leader, first.clone()).await.unwrap().base_offset,
        0
    );
    let appended = produce(&leader, second.clone()).await.unwrap();
    assert_eq!(
        (
            appended.base_offset,
            appended.duplicate,
            appended.log_start_offset
        ),
        (2, false, 0)
    );

    let fetched = leader.fetch(spec(1)).await.unwrap();
    let epoch = appended.epoch;
    assert_eq!(
        fetched.batches,
        [(0, epoch, first), (2, epoch, second.clone())]
    );
    assert_eq!(
        (
            fetched.high_watermark,
            fetched.log_start_offset,
            fetched.epoch
        ),
        (3, 0, epoch)
    );
    let small = leader
        .fetch(FetchSpec {
            max_bytes: 1,
            ..spec(2)
        })
        .await
        .unwrap();
    assert_eq!(small.batches, [(2, epoch, second)]);
    assert_eq!(leader.fetch(spec(3)).await.unwrap().batches, []);
    let beyond = leader.fetch(spec(4)).await.unwrap_err();
    assert_eq!(beyond.code, ErrorCode::OffsetOutOfRange);
    assert!(
        beyond
            .message
            .contains("holds offsets from 0 up to but not including 3"),
        "{beyond}"
    );
    let newer = leader
        .fetch(FetchSpec {
            last_epoch: epoch + 1,
            ..spec(0)
        })
        .await
        .unwrap_err();
    assert_eq!(newer.code, ErrorCode::StaleEpoch);

    let follower = (1..=3)
        .map(|node| cluster.replica(node))
        .find(|one| !one.is_leader())
        .unwrap();
    assert_eq!(
        follower.fetch(spec(0)).await.unwrap_err().code,
        ErrorCode::NotLeader
    );
    assert_eq!(
        produce(&follower, anonymous(&[b"x"]))
            .await
            .unwrap_err()
            .code,
        ErrorCode::NotLeader
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_reader_at_the_end_is_woken_by_the_next_record() {
    let cluster = TestCluster::start(3, settings()).await;
    let leader = cluster.leader().await;
    let waiting = {
        let leader = leader.clone();
        tokio::spawn(async move {
            leader
                .fetch(FetchSpec {
                    max_wait: PATIENCE,
                    ..spec(0)
                })
                .await
        })
    };
    tokio::task::yield_now().await;
    produce(&leader, anonymous(&[b"a"])).await.unwrap();
    let fetched = tokio::time::timeout(PATIENCE / 2, waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!((fetched.batches.len(), fetched.high_watermark), (1, 1));
    cluster.stop().await;
}

#[tokio::test]
async fn duplicates_get_the_first_offset_and_wrong_sequences_get_none() {
    let cluster = TestCluster::start(3, settings()).await;
    let leader = cluster.leader().await;
    produce(&leader, batch((5, 0, 0), &[b"a", b"b"]))
        .await
        .unwrap();
    let again = produce(&leader, batch((5, 0, 0), &[b"a", b"b"]))
        .await
        .unwrap();
    assert_eq!((again.base_offset, again.duplicate), (0, true));
    // Sent twice before either copy is committed: the log decides.
    let twice = batch((5, 0, 2), &[b"c"]);
    let (one, other) = (
        leader.propose(0, twice.clone()).await.unwrap(),
        leader.propose(0, twice).await.unwrap(),
    );
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    assert_eq!(
        (
            (one.base_offset, one.duplicate),
            (other.base_offset, other.duplicate)
        ),
        ((2, false), (2, true))
    );

    let refused = [
        (batch((5, 0, 9), &[b"x"]), ErrorCode::OutOfOrderSequence),
        (batch((6, 0, 4), &[b"x"]), ErrorCode::UnknownProducer),
    ];
    for (batch, code) in refused {
        assert_eq!(produce(&leader, batch).await.unwrap_err().code, code);
    }
    produce(&leader, batch((5, 1, 0), &[b"d"])).await.unwrap();
    let fenced = produce(&leader, batch((5, 0, 3), &[b"x"]))
        .await
        .unwrap_err();
    assert_eq!(fenced.code, ErrorCode::ProducerFenced);
    assert_eq!(
        produce(&leader, anonymous(&[b"e"]))
            .await
            .unwrap()
            .base_offset,
        4
    );
    let offsets: Vec<u64> = contents(&leader)
        .await
        .iter()
        .map(|(offset, ..)| *offset)
        .collect();
    assert_eq!(offsets, [0, 2, 3, 4]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_pipeline_keeps_its_order_and_does_not_wait_for_commits() {
    let cluster = TestCluster::start(3, settings()).await;
    let leader = cluster.leader().await;
    let mut tickets = Vec::new();
    for n in 0..500 {
        tickets.push(leader.propose(0, batch((5, 0, n), &[b"a"])).await.unwrap());
    }
    for (n, ticket) in (0u64..).zip(tickets) {
        let appended = ticket.await.unwrap();
        assert_eq!((appended.base_offset, appended.duplicate), (n, false));
    }
    cluster.stop().await;
}

#[tokio::test]
async fn room_for_batches_comes_back_though_nobody_looks_at_the_tickets() {
    let cluster = TestCluster::start(1, settings()).await;
    let leader = cluster.leader().await;
    let one = anonymous(&[b"a"]);
    let room = &leader.host.produce_room;
    let all_but_one = room.available_permits() - one.len();
    let _taken = room.acquire_many(all_but_one as u32).await.unwrap();
    let mut tickets = Vec::new();
    for _ in 0..20 {
        tickets.push(leader.propose(0, one.clone()).await.unwrap());
    }
    drop(tickets);
    produce(&leader, one).await.unwrap();
    assert_eq!(leader.replica.view.machine().next_offset(), 21);
    cluster.stop().await;
}

#[tokio::test]
async fn bad_batches_are_refused_before_they_cost_anything() {
    let cluster = TestCluster::start(1, settings()).await;
    let leader = cluster.leader().await;
    let applied = leader.replica.view.machine().applied();
    let good = anonymous(&[b"value"]);
    let mut flipped = good.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let large = vec![0u8; (1 << 20) - 200];
    let large = anonymous(&[&large]);
    cluster.change(|view| view.topics.get_mut(TOPIC).unwrap().settings.max_batch_bytes = 1_000);
    eventually("smaller limit", || {
        leader.settings.read().max_batch_bytes == 1_000
    })
    .await;
    let cases = [
        (Bytes::from(flipped), ErrorCode::CorruptBatch),
        (good.slice(..good.len() - 1), ErrorCode::CorruptBatch),
        (Bytes::new(), ErrorCode::CorruptBatch),
        (large, ErrorCode::TooLarge),
    ];
    for (batch, code) in cases {
        assert_eq!(leader.propose(0, batch).await.unwrap_err().code, code);
    }
    assert_eq!(leader.replica.view.machine().applied(), applied);
    cluster.stop().await;
}

#[tokio::test]
async fn offsets_are_found_by_position_and_by_time() {
    let cluster = TestCluster::start(1, settings()).await;
    let leader = cluster.leader().await;
    for _ in 0..3 {
        produce(&leader, anonymous(&[b"a", b"b", b"c"]))
            .await
            .unwrap();
    }
    let offset = async |position| {
        let listed = leader.list_offset(position).await.unwrap();
        (listed.offset, listed.timestamp_ms)
    };
    assert_eq!(offset(Position::Beginning).await, (0, -1));
    assert_eq!(offset(Position::End).await, (9, -1));
    assert_eq!(offset(Position::AtOrAfter(0)).await, (0, 1_000));
    assert_eq!(offset(Position::AtOrAfter(1_002)).await, (2, 1_002));
    assert_eq!(offset(Position::AtOrAfter(1_003)).await, (9, -1));
    cluster.stop().await;
}

#[tokio::test]
async fn another_node_takes_over_with_everything_that_was_acknowledged() {
    let mut cluster = TestCluster::start(3, settings()).await;
    let leader = cluster.leader().await;
    let mut acknowledged = Vec::new();
    for n in 0..50 {
        let value = format!("value {n}");
        let batch = batch((5, 0, n), &[value.as_bytes()]);
        let appended = produce(&leader, batch.clone()).await.unwrap();
        acknowledged.push((appended.base_offset, appended.epoch, batch));
    }
    cluster.kill(leader.host.node_id).await;
    let heir = cluster.leader().await;
    heir.catch_up().await.unwrap();
    assert_eq!(contents(&heir).await, acknowledged);
    let again = produce(&heir, acknowledged[49].2.clone()).await.unwrap();
    assert_eq!((again.base_offset, again.duplicate), (49, true));
    assert!(again.epoch > acknowledged[0].1);
    cluster.stop().await;
}

#[tokio::test]
async fn a_stopping_node_hands_its_leadership_over_and_takes_none() {
    let cluster = TestCluster::start(3, settings()).await;
    let leader = cluster.leader().await;
    eventually("followers in sync", || {
        let info = cluster.nodes[&leader.host.node_id].leaders.get(GROUP);
        info.is_some_and(|info| info.in_sync.len() == 3)
    })
    .await;
    cluster.nodes[&leader.host.node_id]
        .partitions
        .hand_over_all(PATIENCE)
        .await;
    assert!(!leader.is_leader());
    let heir = cluster.leader().await;
    assert_ne!(heir.host.node_id, leader.host.node_id);
    produce(&heir, anonymous(&[b"a"])).await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn a_new_replica_of_a_trimmed_log_becomes_equal_to_its_leader() {
    let small = TopicSettings {
        segment_bytes: 4_000,
        retention_bytes: 8_000,
        ..settings()
    };
    let mut cluster = TestCluster::start(4, small).await;
    let leader = cluster.leader().await;
    let value = [b'v'; 500];
    for n in 0..60 {
        produce(&leader, batch((5, 0, n * 2), &[&value, &value]))
            .await
            .unwrap();
    }
    eventually("purged log", || {
        leader.replica.view.machine().log_start() > 0
            && leader.with_metrics(|metrics| metrics.purged.map_or(0, |purged| purged.index()))
                == leader.replica.view.machine().purgeable_index()
    })
    .await;

    // Node 4 replaces a follower that is gone for good.
    let lost = (1..=3)
        .find(|node| NodeId(*node) != leader.host.node_id)
        .unwrap();
    cluster.kill(NodeId(lost)).await;
    cluster.change_partition(|partition| {
        partition
            .replicas
            .retain(|place| place.node != NodeId(lost));
        partition.replicas.push(place(4));
        partition.retiring = vec![place(lost)];
    });
    let mut told = None;
    eventually("settled membership", || {
        told = cluster
            .nodes
            .values_mut()
            .find_map(|node| node.facts.try_recv().ok());
        told.is_some()
    })
    .await;
    let wished: Vec<u64> = (1..=4)
        .filter(|node| *node != lost)
        .map(|node| node * 10)
        .collect();
    assert_eq!(
        told,
        Some(meta_command::Kind::SettleReplicas(SettleReplicas {
            group_id: GROUP.0,
            replica_ids: wished,
            only_with_all_wished: true,
        }))
    );

    let leader = cluster.leader().await;
    produce(&leader, batch((5, 0, 120), &[&value]))
        .await
        .unwrap();
    let newcomer = cluster.replica(4);
    eventually("equal state", || {
        *newcomer.replica.view.machine() == *leader.replica.view.machine()
    })
    .await;
    assert!(leader.replica.view.machine().log_start() > 0);
    assert_eq!(contents(&newcomer).await, contents(&leader).await);
    let trimmed = leader.fetch(spec(0)).await.unwrap_err();
    assert_eq!(trimmed.code, ErrorCode::OffsetOutOfRange);
    cluster.stop().await;
}

#[tokio::test]
async fn old_records_go_by_the_clock_of_the_leader() {
    let aging = TopicSettings {
        retention_ms: 60_000,
        ..settings()
    };
    let cluster = TestCluster::start(3, aging).await;
    let leader = cluster.leader().await;
    produce(&leader, anonymous(&[b"old"])).await.unwrap();
    cluster.clock.0.store(61_000, Ordering::Relaxed);
    eventually("trimmed log", || {
        (1..=3).all(|node| cluster.replica(node).replica.view.machine().log_start() == 1)
    })
    .await;
    assert_eq!(
        produce(&leader, anonymous(&[b"new"]))
            .await
            .unwrap()
            .base_offset,
        1
    );
    assert_eq!(leader.fetch(spec(1)).await.unwrap().batches.len(), 1);
    cluster.stop().await;
}

#[tokio::test]
async fn replicas_are_removed_with_their_topic_but_not_by_an_older_picture() {
    let cluster = TestCluster::start(1, settings()).await;
    let leader = cluster.leader().await;
    produce(&leader, anonymous(&[b"a"])).await.unwrap();
    let node = &cluster.nodes[&NodeId(1)];
    // Simulates a power loss that took the latest metadata: an older view, without the topic.
    cluster.view.send_modify(|view| {
        let nodes = view.nodes.clone();
        *view = Arc::new(MetadataImage {
            cluster_id: "test".into(),
            nodes,
            ..Default::default()
        });
    });
    eventually("stopped replica", || node.partitions.get(GROUP).is_none()).await;
    // Enough time for several reconciliations, which must not delete anything.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(node.store.replicas(), [(GROUP, place(1).replica)]);
    cluster.change(|view| view.applied = 5);
    eventually("removed replica", || node.store.replicas().is_empty()).await;
    cluster.stop().await;
}
