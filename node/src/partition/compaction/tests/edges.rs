//! Edge cases of compaction: refused appends, a log that is trimmed meanwhile, and a replica that only has
//! the compacted log.

use ropewalk_machines::log::ScanStart;

use super::super::rewrite::{Left, RewriteError, walk};
use super::*;

/// A batch of one record with this sequence of its producer.
fn numbered(sequence: i32, key: &str, value: Option<&str>) -> Bytes {
    let mut batch = BatchBuilder::new(Compression::None, 1 << 20);
    let pushed = batch.push(Some(key.as_bytes()), value.map(str::as_bytes), &[], 0);
    assert!(pushed.unwrap());
    batch.set_producer(7, 0, sequence);
    batch.build()
}

#[tokio::test]
async fn an_append_that_was_refused_supersedes_nothing_and_takes_no_offset() {
    let mut lone = Lone::new().await;
    lone.append(Compression::None, &[("a", Some("1"))]).await;
    lone.command(append(numbered(0, "b", Some("1")))).await;
    // It leaves a gap in its producer's sequence.
    lone.command(append(numbered(5, "a", Some("refused"))))
        .await;
    lone.append(Compression::None, &[("b", None)]).await;
    lone.roll().await;
    let refused = lone.entries().await.remove(2);
    assert!(lone.replica.view.machine().is_refused(2));
    for _ in 0..2 {
        lone.ask(u64::MAX, u64::MAX).await;
        lone.compact(PLENTY).await;
    }
    let entries = lone.entries().await;
    assert_eq!(entries[2], refused);
    let left = |index: usize| match &entries[index].payload {
        EntryPayload::Normal(Command::Append { batch, .. } | Command::Compacted { batch, .. }) => {
            BatchView::trusted(batch.clone()).unwrap().record_count()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!((left(0), left(1), left(3)), (1, 0, 0));
    assert_eq!(lone.done.tombstones, 0);
}

#[tokio::test]
async fn what_was_trimmed_is_not_looked_at() {
    let mut lone = Lone::new().await;
    for value in ["1", "2"] {
        lone.append(Compression::None, &[("a", Some(value))]).await;
        lone.roll().await;
    }
    lone.command(Command::Trim {
        leader_time_ms: 0,
        to_offset: 1,
    })
    .await;
    // Simulates a step that began before the log was trimmed, but not yet purged.
    let from = ScanStart {
        log_index: 0,
        base_offset: 0,
    };
    let mut looked = 0;
    let walked = walk(&lone.replica.view, from, 4, PLENTY, |_, _| {
        looked += 1;
        Left {
            batch: None,
            unpacked_bytes: 0,
        }
    });
    assert!(matches!(walked.await, Err(RewriteError::Trimmed)));
    assert_eq!(looked, 0);
}

#[tokio::test]
async fn what_is_left_replays_to_the_same_times_offsets_and_sequences() {
    let mut lone = Lone::new().await;
    for (number, key) in (0..).zip(["a", "a", "b", "b"]) {
        lone.command(Command::Append {
            stamp: Stamp {
                leader_time_ms: 1_000 + i64::from(number),
                ring_version: 1,
                own_clock: true,
                long_memory: true,
            },
            batch: numbered(number, key, Some("1")),
        })
        .await;
    }
    lone.roll().await;
    lone.ask(u64::MAX, 0).await;
    lone.compact(PLENTY).await;
    let entries = lone.entries().await;
    let gone = |entry: &&Entry| {
        matches!(
            &entry.payload,
            EntryPayload::Normal(Command::Compacted { .. })
        )
    };
    assert_eq!(entries.iter().filter(gone).count(), 2);
    let mut joined = Lone::new().await;
    joined.take(entries).await;
    assert_eq!(*joined.replica.view.machine(), *lone.replica.view.machine());
}

#[tokio::test(start_paused = true)]
async fn it_reads_and_writes_no_more_in_a_second_than_it_may() {
    let mut lone = Lone::new().await;
    for value in ["1", "2", "3"] {
        lone.append(Compression::None, &[("a", Some(value))]).await;
    }
    lone.roll().await;
    lone.ask(u64::MAX, 0).await;
    let bytes = lone.replica.view.log_bytes();
    let slow = RewriteBudget {
        bytes_per_s: 10,
        ..PLENTY
    };
    let began = tokio::time::Instant::now();
    lone.compact(slow).await;
    // The log is read twice: for the keys, and for the rewrite.
    let least = std::time::Duration::from_secs(bytes / 10);
    assert!(began.elapsed() > least, "{bytes} in {:?}", began.elapsed());
}

#[test]
fn a_segment_ends_after_an_hour_though_it_is_not_full() {
    let mut machine = PartitionMachine::default();
    let begun = Command::Append {
        stamp: Stamp {
            leader_time_ms: 5,
            ..Stamp::default()
        },
        batch: batch(Compression::None, &[("a", None)]),
    };
    assert!(!policy::roll_is_due(&machine, i64::MAX), "it holds nothing");
    machine.apply(1, 1, 1_000, Some(&begun)).unwrap();
    assert!(!policy::roll_is_due(&machine, 3_600_004));
    assert!(policy::roll_is_due(&machine, 3_600_005));
}

#[tokio::test]
async fn a_log_that_was_trimmed_is_compacted_from_where_it_begins() {
    let mut lone = Lone::new().await;
    for value in ["1", "2", "3"] {
        lone.append(Compression::None, &[("a", Some(value)), ("b", Some(value))])
            .await;
        lone.roll().await;
    }
    lone.command(Command::Trim {
        leader_time_ms: 0,
        to_offset: 2,
    })
    .await;
    lone.ask(u64::MAX, 0).await;
    lone.compact(PLENTY).await;
    let kept = lone.records().await.split_off(2);
    assert_eq!(kept, found(&[(4, "a", Some("3")), (5, "b", Some("3"))]));
}
