//! Cost to a partition of batches that unpack to many bytes, or to bytes that no reader can parse.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ropewalk_proto::batch::{BatchBuilder, BatchView, Compression, HEADER_BYTES};
use ropewalk_proto::error::ErrorCode;
use tokio::task::JoinHandle;

use super::cluster_tests::{anonymous, produce};
use super::test_cluster::{PATIENCE, TOPIC, TestCluster, eventually, settings};
use super::*;

/// A batch of one record of zeros, which takes a few KiB compressed.
fn zeros(bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::Zstd, 64 << 20);
    let value = vec![0; bytes];
    assert!(builder.push(Some(b"k"), Some(&value), &[], 1_000).unwrap());
    builder.build()
}

/// A valid header and CRC over bytes that are no compressed records.
fn garbage() -> Bytes {
    let mut bytes = zeros(100_000).to_vec();
    bytes[HEADER_BYTES..].fill(0xa5);
    let batch = BatchView::trusted(bytes.into()).unwrap();
    // Makes the CRC match.
    batch.with_producer(-1, -1, -1)
}

fn look_up(
    partition: &Arc<Partition>,
) -> JoinHandle<Result<FoundOffset, ropewalk_proto::error::WireError>> {
    let partition = partition.clone();
    tokio::spawn(async move { partition.list_offset(Position::AtOrAfter(500)).await })
}

#[tokio::test]
async fn a_compressed_batch_that_nobody_can_read_is_not_acknowledged() {
    let cluster = TestCluster::start(1, settings()).await;
    let leader = cluster.leader().await;
    produce(&leader, zeros(100_000)).await.unwrap();
    let applied = leader.replica.view.machine().applied();
    let error = leader.propose(0, garbage()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::CorruptBatch, "{error}");
    // 8 times the topic's max_batch_bytes, from a batch that is far below it.
    let error = leader.propose(0, zeros(9 << 20)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge, "{error}");
    assert!(error.message.contains("to more than 8MiB"), "{error}");
    assert_eq!(leader.replica.view.machine().applied(), applied);
    cluster.stop().await;
}

#[tokio::test]
async fn readers_that_have_used_up_their_half_hold_up_no_producer_and_no_ordinary_batch() {
    let cluster = TestCluster::start(1, settings()).await;
    let leader = cluster.leader().await;
    produce(&leader, zeros(4 << 20)).await.unwrap();
    let readers = &leader.host.unpackers.readers;
    let turns = readers.take_all_turns().await;
    let waiting = [look_up(&leader), look_up(&leader)];
    produce(&leader, anonymous(&[b"plain"])).await.unwrap();
    produce(&leader, zeros(4 << 20)).await.unwrap();
    assert!(waiting.iter().all(|lookup| !lookup.is_finished()));
    drop(turns);
    for lookup in waiting {
        let found = lookup.await.unwrap().unwrap();
        assert_eq!((found.offset, found.timestamp_ms), (0, 1_000));
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_lookup_whose_caller_is_gone_gives_back_its_share() {
    let cluster = TestCluster::start(1, settings()).await;
    let leader = cluster.leader().await;
    produce(&leader, zeros(4 << 20)).await.unwrap();
    let readers = &leader.host.unpackers.readers;
    let all_bytes = readers.free_bytes();
    let turns = readers.take_all_turns().await;
    let lookup = look_up(&leader);
    eventually("a lookup that holds memory", || {
        readers.free_bytes() < all_bytes
    })
    .await;
    lookup.abort();
    eventually("all memory free", || readers.free_bytes() == all_bytes).await;
    drop(turns);
    cluster.stop().await;
}

#[tokio::test]
async fn a_batch_that_waits_to_be_checked_is_overtaken_by_none_of_its_stream() {
    let cluster = TestCluster::start(1, settings()).await;
    let leader = cluster.leader().await;
    produce(&leader, anonymous(&[b"first"])).await.unwrap();
    let turns = leader.host.unpackers.producers.take_all_turns().await;
    let stream = leader.clone();
    let sent = tokio::spawn(async move {
        let mut offsets = Vec::new();
        for batch in [zeros(4 << 20), anonymous(&[b"after"])] {
            let ticket = stream.propose(0, batch).await.unwrap();
            offsets.push(ticket.await.unwrap().base_offset);
        }
        offsets
    });
    // Other batches go on meanwhile.
    let other = produce(&leader, anonymous(&[b"other"])).await.unwrap();
    assert_eq!(other.base_offset, 1);
    drop(turns);
    let offsets = tokio::time::timeout(PATIENCE, sent).await.unwrap().unwrap();
    assert_eq!(offsets, [2, 3]);
    cluster.stop().await;
}

#[tokio::test]
async fn the_check_of_a_compacted_topic_is_under_the_same_budget() {
    let cluster = TestCluster::start(1, settings()).await;
    let leader = cluster.leader().await;
    cluster.change(|view| view.topics.get_mut(TOPIC).unwrap().settings.cleanup = 1);
    eventually("compaction", || leader.settings.read().cleanup == 1).await;
    let turns = leader.host.unpackers.producers.take_all_turns().await;
    let (sender, batch) = (leader.clone(), zeros(4 << 20));
    let sent = tokio::spawn(async move { produce(&sender, batch).await });
    produce(&leader, anonymous(&[b"plain"])).await.unwrap();
    assert!(!sent.is_finished());
    drop(turns);
    assert_eq!(sent.await.unwrap().unwrap().base_offset, 1);
    cluster.stop().await;
}

#[tokio::test]
async fn a_compacted_topic_takes_no_batch_that_compaction_could_not_unpack() {
    let cluster = TestCluster::start(1, settings()).await;
    let leader = cluster.leader().await;
    cluster.change(|view| {
        let settings = &mut view.topics.get_mut(TOPIC).unwrap().settings;
        (settings.cleanup, settings.max_batch_bytes) = (1, 8 << 20);
    });
    eventually("compaction", || leader.settings.read().cleanup == 1).await;
    let error = leader.propose(0, zeros(33 << 20)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge, "{error}");
    produce(&leader, zeros(31 << 20)).await.unwrap();
    cluster.stop().await;
}

/// A batch of three records, of which the second has this time.
fn stamped(codec: Compression, timestamp_ms: i64) -> Bytes {
    let mut builder = BatchBuilder::new(codec, 1 << 20);
    for timestamp_ms in [1_000, timestamp_ms, 2_000] {
        let pushed = builder.push(None, Some(&[7; 300]), &[], timestamp_ms);
        assert!(pushed.unwrap());
    }
    builder.build()
}

#[tokio::test]
async fn a_record_from_the_future_is_refused_by_name_as_its_topic_bounds_it() {
    const NOW_MS: i64 = 1_000_000;
    const HOUR_MS: i64 = 3_600_000;
    let cluster = TestCluster::start(1, settings()).await;
    cluster.clock.0.store(NOW_MS, Ordering::Relaxed);
    let leader = cluster.leader().await;
    let refused = async |codec, timestamp_ms| {
        let error = leader.propose(0, stamped(codec, timestamp_ms)).await;
        let error = error.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidTimestamp, "{error}");
        let (latest, said) = (timestamp_ms - 1, &error.message);
        let named = said.contains("record 1 ") && said.contains(&timestamp_ms.to_string());
        assert!(named && said.contains(&latest.to_string()), "{error}");
    };
    for codec in [Compression::None, Compression::Zstd] {
        produce(&leader, stamped(codec, NOW_MS + HOUR_MS))
            .await
            .unwrap();
        refused(codec, NOW_MS + HOUR_MS + 1).await;
    }
    let bound = |ahead_ms| {
        cluster.change(|view| {
            let settings = &mut view.topics.get_mut(TOPIC).unwrap().settings;
            settings.max_timestamp_ahead_ms = ahead_ms;
        });
        let leader = leader.clone();
        eventually("another bound", move || {
            leader.settings.read().max_timestamp_ahead_ms == ahead_ms
        })
    };
    bound(10).await;
    refused(Compression::Zstd, NOW_MS + 11).await;
    bound(-1).await;
    produce(&leader, stamped(Compression::Zstd, i64::MAX))
        .await
        .unwrap();
    cluster.stop().await;
}
