//! Batches: building, the checks of the broker, and reading. 100 records of 1 KB, for each codec.

#![allow(
    unsafe_code,
    reason = "divan registers a benchmark in a section of the binary"
)]
#![allow(clippy::unwrap_used, reason = "a benchmark stops at its first mistake")]

use bytes::Bytes;
use divan::{Bencher, black_box, counter::BytesCount};
use ropewalk_proto::batch::{BatchBuilder, BatchView, Compression, Limits};

const RECORDS: usize = 100;
const RECORD_BYTES: usize = 1_000;
const MAX_BYTES: usize = 1 << 20;

fn main() {
    divan::main();
}

fn build(compression: Compression) -> Bytes {
    let value = "a value that compresses ".repeat(RECORD_BYTES / 24);
    let mut builder = BatchBuilder::new(compression, MAX_BYTES);
    for number in 0..RECORDS {
        let key = format!("key-{number}");
        let (key, value) = (key.as_bytes(), value.as_bytes());
        builder.push(Some(key), Some(value), &[], 1_000).unwrap();
    }
    builder.build()
}

fn limits() -> Limits {
    Limits::new(MAX_BYTES as u32)
}

#[divan::bench(args = Compression::ALL)]
fn building(bencher: Bencher<'_, '_>, compression: Compression) {
    bencher
        .counter(BytesCount::new(RECORDS * RECORD_BYTES))
        .bench(|| build(black_box(compression)));
}

/// The header's checks, and those of uncompressed records.
#[divan::bench(args = Compression::ALL)]
fn checking(bencher: Bencher<'_, '_>, compression: Compression) {
    let batch = build(compression);
    bencher
        .counter(BytesCount::new(batch.len()))
        .bench(|| BatchView::check(batch.clone(), &limits()).unwrap());
}

#[divan::bench(args = Compression::ALL)]
fn reading(bencher: Bencher<'_, '_>, compression: Compression) {
    let batch = BatchView::check(build(compression), &limits()).unwrap();
    bencher
        .counter(BytesCount::new(RECORDS * RECORD_BYTES))
        .bench(|| batch.records(MAX_BYTES).unwrap());
}
