//! The mapping of keys to partitions: of one key, and the making of a ring when a topic grows.

#![allow(
    unsafe_code,
    reason = "divan registers a benchmark in a section of the binary"
)]

use divan::{Bencher, black_box};
use ropewalk_proto::partitioner::Partitioner;

const PARTITIONS: [u32; 3] = [3, 48, 1_000];

fn main() {
    divan::main();
}

#[divan::bench(args = PARTITIONS)]
fn key_by_ring(bencher: Bencher<'_, '_>, partitions: u32) {
    let ring = Partitioner::ring(partitions);
    bencher.bench(|| ring.partition(black_box(b"key-1234")));
}

#[divan::bench(args = PARTITIONS)]
fn key_by_murmur2(bencher: Bencher<'_, '_>, partitions: u32) {
    let murmur2 = Partitioner::murmur2(partitions);
    bencher.bench(|| murmur2.partition(black_box(b"key-1234")));
}

#[divan::bench(args = PARTITIONS)]
fn making_a_ring(partitions: u32) -> Partitioner {
    Partitioner::ring(black_box(partitions))
}
