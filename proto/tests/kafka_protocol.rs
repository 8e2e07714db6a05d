//! The `kafka-protocol` crate reads batches built here, and the reverse, with every codec.

#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, as tests do

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression as TheirCompression, Record as TheirRecord, RecordBatchDecoder, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};
use ropewalk_proto::batch::{BatchBuilder, BatchView, Compression, Header, Limits, Record};

const BASE_MS: i64 = 1_357_034_400_000;
const MAX_DECOMPRESSED_BYTES: usize = 1 << 20;
const PRODUCER: (i64, i16, i32) = (4_711, 3, 1_000);

const CODECS: [(Compression, TheirCompression); 5] = [
    (Compression::None, TheirCompression::None),
    (Compression::Gzip, TheirCompression::Gzip),
    (Compression::Snappy, TheirCompression::Snappy),
    (Compression::Lz4, TheirCompression::Lz4),
    (Compression::Zstd, TheirCompression::Zstd),
];

/// Records with every combination of absent, empty and present. No header key repeats, since the other side
/// keeps headers in a map.
fn records() -> Vec<Record> {
    let texts = [
        None,
        Some(Bytes::new()),
        Some(Bytes::from_static(b"text")),
        Some(b"0123456789abcdef".repeat(4_000).into()),
    ];
    let mut records = Vec::new();
    for key in &texts {
        for value in &texts {
            let number = records.len() as i32;
            let headers = (0..number % 4).map(|i| Header {
                key: format!("header {i}"),
                value: texts[i as usize].clone(),
            });
            records.push(Record {
                offset_delta: number,
                timestamp_ms: BASE_MS + i64::from(number % 5) * 1_000_000,
                key: key.clone(),
                value: value.clone(),
                headers: headers.collect(),
            });
        }
    }
    records
}

fn theirs(record: &Record) -> TheirRecord {
    let header = |header: &Header| (StrBytes::from(header.key.clone()), header.value.clone());
    TheirRecord {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: PRODUCER.0,
        producer_epoch: PRODUCER.1,
        timestamp_type: TimestampType::Creation,
        offset: i64::from(record.offset_delta),
        sequence: PRODUCER.2 + record.offset_delta,
        timestamp: record.timestamp_ms,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.iter().map(header).collect(),
    }
}

#[test]
fn what_is_built_here_is_read_by_the_other_side() {
    for (codec, _) in CODECS {
        let mut builder = BatchBuilder::new(codec, 1 << 20);
        builder.set_producer(PRODUCER.0, PRODUCER.1, PRODUCER.2);
        for record in records() {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            let added = builder.push(key, value, &record.headers, record.timestamp_ms);
            assert_eq!(added, Ok(true));
        }
        let batch = builder.build();
        let read = RecordBatchDecoder::decode(&mut batch.clone()).unwrap();
        let expected: Vec<TheirRecord> = records().iter().map(theirs).collect();
        assert_eq!(read.records, expected, "{codec}");
        let head = BatchView::trusted(batch).unwrap();
        assert_eq!(head.compression(), codec, "these records compress");
    }
}

#[test]
fn what_the_other_side_builds_is_accepted_and_read_here() {
    for (codec, compression) in CODECS {
        let theirs: Vec<TheirRecord> = records().iter().map(theirs).collect();
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions {
            version: 2,
            compression,
        };
        RecordBatchEncoder::encode(&mut bytes, &theirs, &options).unwrap();
        let batch = BatchView::check(bytes.freeze(), &Limits::new(1 << 20)).unwrap();
        assert_eq!(batch.compression(), codec);
        assert_eq!(batch.producer_id(), PRODUCER.0);
        assert_eq!(batch.producer_epoch(), PRODUCER.1);
        assert_eq!(batch.base_sequence(), PRODUCER.2);
        assert_eq!(batch.max_timestamp_ms(), BASE_MS + 4_000_000);
        assert_eq!(
            batch.records(MAX_DECOMPRESSED_BYTES),
            Ok(records()),
            "{codec}"
        );
    }
}
