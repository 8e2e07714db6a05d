//! One entry applied to a partition: an append with and without a producer, beside others that it remembers.

#![allow(
    unsafe_code,
    reason = "divan registers a benchmark in a section of the binary"
)]
#![allow(clippy::unwrap_used, reason = "a benchmark stops at its first mistake")]

use divan::Bencher;
use ropewalk_machines::Machine;
use ropewalk_machines::log::PartitionMachine;
use ropewalk_proto::batch::{BatchBuilder, Compression};
use ropewalk_proto::command::{Command, Stamp};

fn main() {
    divan::main();
}

/// An append of one record; without a producer if the id is -1.
fn append(producer: i64, sequence: i32) -> Command {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 10);
    match producer {
        -1 => builder.set_producer(-1, -1, -1),
        id => builder.set_producer(id, 0, sequence),
    }
    let pushed = builder.push(Some(b"key"), Some(b"value"), &[], 1_000);
    assert!(pushed.unwrap());
    Command::Append {
        stamp: Stamp {
            leader_time_ms: 1_000,
            ring_version: 1,
            own_clock: true,
            long_memory: true,
        },
        batch: builder.build(),
    }
}

/// Partition to which each of these producers has appended once, and the index of its last entry.
fn partition(producers: i64) -> (PartitionMachine, u64) {
    let mut machine = PartitionMachine::default();
    let mut index = 0;
    for producer in 0..producers {
        index += 1;
        let command = append(producer, 0);
        let entry_bytes = command.log_bytes() as u64;
        machine
            .apply(index, 1, entry_bytes, Some(&command))
            .unwrap();
    }
    (machine, index)
}

#[divan::bench(args = [0, 1_000])]
fn append_without_a_producer(bencher: Bencher<'_, '_>, producers: i64) {
    let (mut machine, mut index) = partition(producers);
    let command = append(-1, -1);
    let entry_bytes = command.log_bytes() as u64;
    bencher.bench_local(|| {
        index += 1;
        machine
            .apply(index, 1, entry_bytes, Some(&command))
            .unwrap()
    });
}

/// The producer's next batch each time, which is built outside of the measurement.
#[divan::bench(args = [1, 1_000])]
fn append_of_a_producer(bencher: Bencher<'_, '_>, producers: i64) {
    let (mut machine, mut index) = partition(producers);
    let mut sequence = 0;
    let next = move || {
        sequence += 1;
        append(0, sequence)
    };
    bencher.with_inputs(next).bench_local_values(|command| {
        index += 1;
        let entry_bytes = command.log_bytes() as u64;
        machine
            .apply(index, 1, entry_bytes, Some(&command))
            .unwrap()
    });
}
