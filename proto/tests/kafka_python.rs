//! Batches from a Kafka client, committed under `fixtures/`, are accepted and read as the client meant
//! them.

#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, as tests do

use bytes::Bytes;
use ropewalk_proto::batch::{BatchView, Compression, Header, Limits, Record};

const BASE_MS: i64 = 1_357_034_400_000;
const LIMITS: Limits = Limits::new(1 << 20);
const MAX_DECOMPRESSED_BYTES: usize = 1 << 20;

fn header(key: &str, value: Option<&'static [u8]>) -> Header {
    Header {
        key: key.to_owned(),
        value: value.map(Bytes::from_static),
    }
}

/// The records of `fixtures/make.py`.
fn records() -> Vec<Record> {
    type Text = Option<&'static [u8]>;
    let rows: Vec<(i64, Text, Text, Vec<Header>)> = vec![
        (0, Some(b"N14228"), Some(b"EWR to IAH"), vec![]),
        (1, None, Some(b"no key"), vec![]),
        (2, Some(b"tombstone"), None, vec![]),
        (3, None, None, vec![]),
        (4, Some(b""), Some(b""), vec![header("", Some(b""))]),
        (
            -60_000,
            Some(b"late"),
            Some(b"before the first"),
            vec![header("trace", Some(b"\x00\xff")), header("none", None)],
        ),
        (
            5,
            Some(b"twice"),
            Some(b"same header"),
            vec![
                header("hop", Some(b"a")),
                header("hop", Some(b"b")),
                header("hop", Some(b"a")),
            ],
        ),
        (
            6,
            Some("Schlüssel".as_bytes()),
            Some("größer".as_bytes()),
            vec![header("naïve", Some("ü".as_bytes()))],
        ),
        (86_400_000, Some(b"large"), None, vec![]),
    ];
    let mut records: Vec<Record> = rows
        .into_iter()
        .zip(0..)
        .map(
            |((after_base_ms, key, value, headers), offset_delta)| Record {
                offset_delta,
                timestamp_ms: BASE_MS + after_base_ms,
                key: key.map(Bytes::from_static),
                value: value.map(Bytes::from_static),
                headers,
            },
        )
        .collect();
    records[8].value = Some(b"0123456789abcdef".repeat(5_000).into());
    records
}

fn assert_reads_as_meant(fixture: &'static [u8], compression: Compression) {
    let batch = BatchView::check(Bytes::from_static(fixture), &LIMITS).unwrap();
    assert_eq!(batch.compression(), compression);
    assert_eq!(batch.record_count(), 9);
    assert_eq!(batch.last_offset_delta(), 8);
    assert_eq!(batch.base_timestamp_ms(), BASE_MS);
    assert_eq!(batch.max_timestamp_ms(), BASE_MS + 86_400_000);
    assert_eq!(batch.producer_id(), -1);
    assert_eq!(batch.records(MAX_DECOMPRESSED_BYTES), Ok(records()));
}

#[test]
fn an_uncompressed_batch_of_a_kafka_client_reads_as_meant() {
    assert_reads_as_meant(include_bytes!("fixtures/none.batch"), Compression::None);
}

#[test]
fn a_gzip_batch_of_a_kafka_client_reads_as_meant() {
    assert_reads_as_meant(include_bytes!("fixtures/gzip.batch"), Compression::Gzip);
}

#[test]
fn a_snappy_batch_of_a_kafka_client_reads_as_meant() {
    assert_reads_as_meant(include_bytes!("fixtures/snappy.batch"), Compression::Snappy);
}

#[test]
fn an_lz4_batch_of_a_kafka_client_reads_as_meant() {
    assert_reads_as_meant(include_bytes!("fixtures/lz4.batch"), Compression::Lz4);
}

#[test]
fn a_zstd_batch_of_a_kafka_client_reads_as_meant() {
    assert_reads_as_meant(include_bytes!("fixtures/zstd.batch"), Compression::Zstd);
}

#[test]
fn a_kafka_clients_producer_identity_is_read() {
    let bytes = Bytes::from_static(include_bytes!("fixtures/one-idempotent.batch"));
    let batch = BatchView::check(bytes, &LIMITS).unwrap();
    assert_eq!(batch.producer_id(), 4_711);
    assert_eq!(batch.producer_epoch(), 3);
    assert_eq!(batch.base_sequence(), 1_000_000);
    assert_eq!(
        batch.records(MAX_DECOMPRESSED_BYTES).unwrap(),
        records()[..1]
    );
}
