//! The log after compaction, on one replica and on several that went different ways.

mod edges;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use openraft::EntryPayload;
use openraft::storage::{RaftLogStorageExt, RaftStateMachine};
use proptest::prelude::*;
use ropewalk_machines::Machine;
use ropewalk_machines::log::PartitionMachine;
use ropewalk_proto::batch::{BatchBuilder, BatchView, Compression};
use ropewalk_proto::command::{Command, Stamp};
use ropewalk_proto::ids::{GroupId, ReplicaId};
use ropewalk_proto::v1::{Cleanup, TopicSettings};
use ropewalk_raft_store::disk::MemoryDisk;
use ropewalk_raft_store::types::{Entry, LogId};
use ropewalk_raft_store::{Disk, Replica, Store, StoreOptions};

use super::rewrite::{RewriteBudget, step};
use super::{Progress, check, policy};

/// Stamp of every batch; compaction does not change it.
const STAMP: Stamp = Stamp {
    leader_time_ms: 5,
    ring_version: 2,
    own_clock: true,
    long_memory: true,
};
const PLENTY: RewriteBudget = RewriteBudget {
    bytes_per_s: usize::MAX,
    memory_bytes: 1 << 20,
};
/// Memory for two keys.
const SCARCE: RewriteBudget = RewriteBudget {
    memory_bytes: 128,
    ..PLENTY
};

/// One replica without a group: the test writes its log.
struct Lone {
    replica: Replica<PartitionMachine>,
    done: Progress,
}

impl Lone {
    async fn open(disk: Arc<dyn Disk>) -> Lone {
        let options = StoreOptions {
            tail_bytes: 0,
            ..StoreOptions::default()
        };
        let store = Store::open(disk, options).await.unwrap();
        let replica = store
            .open_replica(GroupId(1), ReplicaId(1), PartitionMachine::default())
            .await
            .unwrap();
        let done = Progress::load(&replica.view).await.unwrap();
        Lone { replica, done }
    }

    async fn new() -> Lone {
        Lone::open(Arc::new(MemoryDisk::new())).await
    }

    async fn take(&mut self, entries: Vec<Entry>) {
        let appended = self.replica.log.blocking_append(entries.clone()).await;
        appended.unwrap();
        let entries = entries.into_iter().map(|entry| Ok((entry, None)));
        self.replica
            .state
            .apply(stream::iter(entries))
            .await
            .unwrap();
    }

    async fn command(&mut self, command: Command) {
        let index = self.next_index();
        self.take(vec![entry(index, command)]).await;
    }

    fn next_index(&self) -> u64 {
        // Every call of `take` applies an index, the first being 0.
        let any = self.replica.view.machine().log_bytes() > 0;
        u64::from(any) + self.replica.view.machine().applied()
    }

    async fn append(&mut self, codec: Compression, records: &[(&str, Option<&str>)]) {
        let batch = batch(codec, records);
        self.command(append(batch)).await;
    }

    async fn roll(&mut self) {
        self.command(Command::Roll { leader_time_ms: 0 }).await;
    }

    async fn ask(&mut self, to_offset: u64, tombstones_below: u64) {
        self.command(Command::Compact {
            leader_time_ms: 0,
            to_offset,
            tombstones_below,
        })
        .await;
    }

    /// Runs the requested compaction; returns the number of steps.
    async fn compact(&mut self, allowance: RewriteBudget) -> usize {
        let target = self.replica.view.machine().compaction();
        let mut steps = 0;
        while !self.done.has_done(&target) {
            let done = step(&self.replica.view, &self.done, &target, allowance).await;
            let done = done.map(|(done, _)| done);
            self.done = done.unwrap();
            steps += 1;
        }
        steps
    }

    async fn entries(&self) -> Vec<Entry> {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let next = all.last().map_or(0, |last| last.log_id.index + 1);
            let more = self.replica.view.entries(next..u64::MAX, usize::MAX).await;
            let more = more.unwrap();
            if more.is_empty() {
                return all;
            }
            all.extend(more);
        }
    }

    /// Returns offset, key and value of all records.
    async fn records(&self) -> Vec<Found> {
        let mut found = Vec::new();
        let mut base_offset = 0;
        for entry in self.entries().await {
            let EntryPayload::Normal(
                Command::Append { stamp, batch } | Command::Compacted { stamp, batch, .. },
            ) = entry.payload
            else {
                continue;
            };
            assert_eq!(stamp, STAMP);
            let batch = BatchView::trusted(batch).unwrap();
            batch.check_crc().unwrap();
            for record in batch.records(1 << 20).unwrap() {
                let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
                let offset = base_offset + record.offset_delta as u64;
                found.push((offset, record.key.map(text), record.value.map(text)));
            }
            base_offset += u64::from(batch.offset_count());
        }
        found
    }
}

type Found = (u64, Option<String>, Option<String>);

fn entry(index: u64, command: Command) -> Entry {
    Entry {
        log_id: LogId::new_term_index(1, index),
        payload: EntryPayload::Normal(command),
    }
}

fn append(batch: Bytes) -> Command {
    Command::Append {
        stamp: STAMP,
        batch,
    }
}

fn batch(codec: Compression, records: &[(&str, Option<&str>)]) -> Bytes {
    let mut batch = BatchBuilder::new(codec, 1 << 20);
    for (key, value) in records {
        let key = (!key.is_empty()).then_some(key.as_bytes());
        let pushed = batch.push(key, value.map(str::as_bytes), &[], 0);
        assert!(pushed.unwrap());
    }
    batch.build()
}

fn found(records: &[(u64, &str, Option<&str>)]) -> Vec<Found> {
    let own = |&(offset, key, value): &(u64, &str, Option<&str>)| {
        let key = (!key.is_empty()).then(|| key.to_owned());
        (offset, key, value.map(str::to_owned))
    };
    records.iter().map(own).collect()
}

#[tokio::test]
async fn the_last_record_of_each_key_stays_where_it_was() {
    let mut lone = Lone::new().await;
    lone.append(Compression::None, &[("a", Some("1")), ("b", Some("1"))])
        .await;
    lone.append(Compression::Zstd, &[("a", Some("2")), ("a", Some("3"))])
        .await;
    lone.append(Compression::None, &[("", Some("no key")), ("c", Some("1"))])
        .await;
    lone.append(Compression::Lz4, &[("b", Some("2"))]).await;
    lone.roll().await;
    // After the ended segments: compaction does not read it, and it supersedes nothing.
    lone.append(Compression::None, &[("c", Some("2"))]).await;
    let before = lone.replica.view.machine().clone();
    lone.ask(u64::MAX, 0).await;
    assert_eq!(lone.compact(PLENTY).await, 1);
    let expected = [
        (3, "a", Some("3")),
        (4, "", Some("no key")),
        (5, "c", Some("1")),
        (6, "b", Some("2")),
        (7, "c", Some("2")),
    ];
    assert_eq!(lone.records().await, found(&expected));
    assert_eq!(
        lone.replica.view.machine().next_offset(),
        before.next_offset()
    );
    assert_eq!(lone.compact(PLENTY).await, 0);
}

#[tokio::test]
async fn a_tombstone_stays_until_it_is_asked_to_go() {
    let mut lone = Lone::new().await;
    lone.append(Compression::None, &[("a", Some("1")), ("b", Some("1"))])
        .await;
    lone.append(Compression::None, &[("a", None)]).await;
    lone.roll().await;
    // A tombstone that no compaction has passed yet cannot be requested to go.
    lone.ask(u64::MAX, u64::MAX).await;
    lone.compact(PLENTY).await;
    assert_eq!(
        lone.records().await,
        found(&[(1, "b", Some("1")), (2, "a", None)])
    );
    assert_eq!(lone.done.tombstones, 1);
    lone.ask(u64::MAX, u64::MAX).await;
    lone.compact(PLENTY).await;
    assert_eq!(lone.records().await, found(&[(1, "b", Some("1"))]));
    assert_eq!(lone.done.tombstones, 0);
    assert_eq!(lone.replica.view.machine().next_offset(), 3);
}

#[tokio::test]
async fn with_less_memory_it_takes_more_steps_and_comes_to_the_same() {
    let mut ends = Vec::new();
    for (allowance, least) in [(PLENTY, 1), (SCARCE, 4)] {
        let mut lone = Lone::new().await;
        for n in 0..6 {
            for key in ["a", "b", "c", "d"] {
                let value = format!("{n}");
                lone.append(Compression::Gzip, &[(key, Some(&value)), (key, None)])
                    .await;
            }
        }
        lone.roll().await;
        lone.ask(u64::MAX, 0).await;
        assert!(lone.compact(allowance).await >= least);
        ends.push((lone.entries().await, lone.done));
    }
    assert_eq!(ends[0], ends[1]);
}

#[tokio::test]
async fn what_was_done_is_known_after_a_restart() {
    let disk = Arc::new(MemoryDisk::new());
    let mut lone = Lone::open(disk.clone()).await;
    lone.append(Compression::None, &[("a", Some("1")), ("a", Some("2"))])
        .await;
    lone.roll().await;
    lone.ask(u64::MAX, 0).await;
    lone.compact(PLENTY).await;
    let (done, entries) = (lone.done, lone.entries().await);
    let survived = Arc::new(disk.crash_image(0));
    let mut lone = Lone::open(survived).await;
    assert_eq!(lone.done, done);
    assert_eq!(lone.entries().await, entries);
    // Simulates a crash before the progress was stored.
    lone.done = Progress::default();
    assert_eq!(lone.compact(PLENTY).await, 1);
    assert_eq!((lone.done, lone.entries().await), (done, entries));
}

#[test]
fn a_record_without_a_key_is_refused_in_whatever_batch() {
    let records_of = |bytes| {
        let batch = BatchView::trusted(bytes).unwrap();
        batch.iter_records(1 << 20).unwrap()
    };
    for codec in Compression::ALL {
        let keyed = batch(codec, &[("a", Some("1")), ("b", None)]);
        assert_eq!(check(records_of(keyed)), Ok(()));
        let not = batch(codec, &[("a", Some("1")), ("", Some("2"))]);
        let error = check(records_of(not)).unwrap_err();
        assert!(
            error.message.contains("record 1 of the batch has no key"),
            "{error}"
        );
    }
}

/// Three segments of one record and 1,000 bytes each, ended at 100, 200 and 300 ms.
fn segments() -> PartitionMachine {
    let mut machine = PartitionMachine::default();
    for n in 0..3_u64 {
        let leader_time_ms = (n as i64 + 1) * 100;
        let command = Command::Append {
            stamp: Stamp {
                leader_time_ms,
                ..Stamp::default()
            },
            batch: batch(Compression::None, &[("a", None)]),
        };
        machine.apply(n * 2 + 1, 1, 1_000, Some(&command)).unwrap();
        let roll = Command::Roll { leader_time_ms };
        machine.apply(n * 2 + 2, 1, 0, Some(&roll)).unwrap();
    }
    machine
}

fn compacted_topic() -> TopicSettings {
    TopicSettings {
        cleanup: Cleanup::Compact as i32,
        delete_horizon_ms: 1_000,
        ..Default::default()
    }
}

#[test]
fn a_log_is_compacted_once_enough_of_it_is_dirty_and_old_enough() {
    let machine = segments();
    let next = |left_bytes, settings: &TopicSettings, now_ms| {
        let own = Progress {
            left_bytes,
            ..Progress::default()
        };
        policy::next(&machine, &own, 0, settings, now_ms)
    };
    let settings = compacted_topic();
    assert_eq!(next(0, &settings, 300), Some((3, 0)));
    assert_eq!(next(3_000, &settings, 300), Some((3, 0)));
    assert_eq!(next(3_001, &settings, 300), None, "less than half is dirty");
    let eager = TopicSettings {
        min_dirty_percent: 10,
        ..settings
    };
    assert_eq!(next(3_001, &eager, 300), Some((3, 0)));
    let patient = TopicSettings {
        min_compaction_lag_ms: 50,
        ..settings
    };
    assert_eq!(next(0, &patient, 300), Some((2, 0)));
    assert_eq!(next(0, &patient, 149), None);
}

#[test]
fn tombstones_go_when_time_is_up_and_no_replica_needs_them() {
    let mut machine = segments();
    let compact = |to_offset, tombstones_below, leader_time_ms| Command::Compact {
        leader_time_ms,
        to_offset,
        tombstones_below,
    };
    machine.apply(7, 1, 0, Some(&compact(3, 0, 1_000))).unwrap();
    let target = machine.compaction();
    assert_eq!((target.to_offset, target.waiting_offset), (3, 3));
    let own = Progress {
        to_offset: 3,
        tombstones: 1,
        ..Progress::default()
    };
    let settings = compacted_topic();
    let next = |machine: &PartitionMachine, own: &Progress, all_to, now_ms| {
        policy::next(machine, own, all_to, &settings, now_ms)
    };
    assert_eq!(next(&machine, &own, 3, 2_000), Some((3, 3)));
    assert_eq!(next(&machine, &own, 3, 1_999), None, "the horizon");
    assert_eq!(next(&machine, &own, 2, 9_999), None, "a replica is behind");
    let behind = Progress {
        to_offset: 2,
        ..own
    };
    assert_eq!(next(&machine, &behind, 3, 9_999), None, "this one is");
    let none_left = Progress {
        tombstones: 0,
        ..own
    };
    assert_eq!(next(&machine, &none_left, 3, 9_999), None);
    machine.apply(8, 1, 0, Some(&compact(3, 3, 2_000))).unwrap();
    assert_eq!(machine.compaction().tombstones_below, 3);
    assert_eq!(
        next(&machine, &own, 3, 9_999),
        None,
        "it is asked for already"
    );
}

/// An operation of a test on a log.
#[derive(Debug, Clone)]
enum Act {
    /// Appends a batch of these keys, each with or without a value.
    Append(usize, Vec<(u8, bool)>),
    Roll,
    /// Compacts, and optionally lets tombstones go below an offset.
    Ask(bool),
}

fn act() -> impl Strategy<Value = Act> {
    let records = proptest::collection::vec((0_u8..5, any::<bool>()), 1..6);
    prop_oneof![
        6 => (0..5_usize, records).prop_map(|(codec, records)| Act::Append(codec, records)),
        2 => Just(Act::Roll),
        2 => any::<bool>().prop_map(Act::Ask),
    ]
}

impl Act {
    async fn on(&self, lone: &mut Lone, number: usize) {
        match self {
            Act::Append(codec, records) => {
                let value = format!("{number}");
                let own = |(key, has_value): &(u8, bool)| {
                    let key = ["", "a", "b", "c", "d"][usize::from(*key)];
                    (key, has_value.then_some(value.as_str()))
                };
                let records: Vec<_> = records.iter().map(own).collect();
                lone.append(Compression::ALL[*codec], &records).await;
            }
            Act::Roll => lone.roll().await,
            Act::Ask(and_tombstones) => {
                let below = if *and_tombstones { u64::MAX } else { 0 };
                lone.ask(u64::MAX, below).await;
            }
        }
    }
}

/// Computes the records that must be left, from the definition of compaction.
fn promised(all: Vec<Found>, to_offset: u64, tombstones_below: u64) -> Vec<Found> {
    let mut last = BTreeMap::new();
    for (offset, key, _) in all.iter().filter(|(offset, ..)| *offset < to_offset) {
        last.insert(key.clone(), *offset);
    }
    let stays = |(offset, key, value): &Found| {
        let superseded = *offset < to_offset && last.get(key) != Some(offset);
        let expired = value.is_none() && *offset < tombstones_below;
        key.is_none() || !superseded && !expired
    };
    all.into_iter().filter(stays).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn replicas_that_went_different_ways_end_equal_and_as_promised(
        acts in proptest::collection::vec(act(), 1..40),
        stops in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut at_once, mut late, mut never) =
                (Lone::new().await, Lone::new().await, Lone::new().await);
            let mut joined = Lone::new().await;
            for (number, act) in acts.iter().enumerate() {
                for lone in [&mut at_once, &mut late, &mut never] {
                    act.on(lone, number).await;
                }
                at_once.compact(PLENTY).await;
                if stops[number] {
                    late.compact(SCARCE).await;
                }
            }
            late.compact(SCARCE).await;
            // A new replica gets the log in its current state.
            joined.take(at_once.entries().await).await;
            joined.compact(SCARCE).await;
            let target = never.replica.view.machine().compaction();
            let expected = promised(never.records().await, target.to_offset, target.tombstones_below);
            for lone in [&at_once, &late, &joined] {
                assert_eq!(lone.records().await, expected);
                assert_eq!(lone.entries().await, at_once.entries().await);
                assert_eq!(*lone.replica.view.machine(), *never.replica.view.machine());
            }
        });
    }
}
