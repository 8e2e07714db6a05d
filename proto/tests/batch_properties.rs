//! Any records survive a round trip, and no bytes cause a panic.

#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, as tests do

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use ropewalk_proto::batch::{
    BatchBuilder, BatchView, Compression, HEADER_BYTES, Header, Limits, Record,
};

const LIMITS: Limits = Limits::new(1 << 20);
const MAX_DECOMPRESSED_BYTES: usize = 1 << 20;

fn text() -> impl Strategy<Value = Option<Bytes>> {
    let length = prop_oneof![0..4_usize, 60..70_usize, 120..140_usize, 8_000..9_000_usize];
    let bytes = (any::<u8>(), length, vec(any::<u8>(), 0..16)).prop_map(|(fill, length, end)| {
        let mut bytes = vec![fill; length];
        bytes.extend_from_slice(&end);
        Bytes::from(bytes)
    });
    option::of(bytes)
}

fn headers() -> impl Strategy<Value = Vec<Header>> {
    vec(
        ("[a-cäß]{0,3}", text()).prop_map(|(key, value)| Header { key, value }),
        0..4,
    )
}

fn time_ms() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), 1_357_034_400_000..1_357_034_500_000_i64]
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    vec((time_ms(), text(), text(), headers()), 1..20).prop_map(|rows| {
        let record = |((timestamp_ms, key, value, headers), offset_delta)| Record {
            offset_delta,
            timestamp_ms,
            key,
            value,
            headers,
        };
        rows.into_iter().zip(0..).map(record).collect()
    })
}

fn codec() -> impl Strategy<Value = Compression> {
    prop::sample::select(&Compression::ALL[..])
}

fn push(builder: &mut BatchBuilder, record: &Record) -> bool {
    let (key, value) = (record.key.as_deref(), record.value.as_deref());
    builder
        .push(key, value, &record.headers, record.timestamp_ms)
        .unwrap()
}

fn build(codec: Compression, records: &[Record]) -> Bytes {
    let mut builder = BatchBuilder::new(codec, 2 << 20);
    for record in records {
        assert!(push(&mut builder, record));
    }
    builder.build()
}

/// Reads everything that can be read, like a reader that trusts nothing.
fn read(bytes: Bytes) {
    let _ = BatchView::check(bytes.clone(), &LIMITS);
    if let Ok(batch) = BatchView::trusted(bytes) {
        let _ = batch.check_crc();
        let _ = batch.records(MAX_DECOMPRESSED_BYTES);
        let _ = batch.patch_head(1, 1);
        let _ = batch.with_producer(1, 1, 1);
    }
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        codec in codec(),
        records in records(),
        id in any::<i64>(),
        epoch in any::<i16>(),
        sequence in any::<i32>(),
    ) {
        let mut builder = BatchBuilder::new(codec, 2 << 20);
        builder.set_producer(id, epoch, sequence);
        for record in &records {
            prop_assert!(push(&mut builder, record));
        }
        let plain_bytes = builder.bytes_len();
        let bytes = builder.build();
        prop_assert!(bytes.len() <= plain_bytes);
        let batch = BatchView::trusted(bytes).unwrap();
        prop_assert_eq!(batch.check_crc(), Ok(()));
        prop_assert_eq!(batch.record_count() as usize, records.len());
        prop_assert_eq!(batch.last_offset_delta() as usize, records.len() - 1);
        prop_assert_eq!(batch.producer_id(), id);
        prop_assert_eq!(batch.producer_epoch(), epoch);
        prop_assert_eq!(batch.base_sequence(), sequence);
        prop_assert_eq!(batch.base_timestamp_ms(), records[0].timestamp_ms);
        let max = records.iter().map(|record| record.timestamp_ms).max();
        prop_assert_eq!(Some(batch.max_timestamp_ms()), max);
        prop_assert!(!batch.is_control());
        prop_assert_eq!(batch.records(plain_bytes), Ok(records));
    }

    #[test]
    fn what_is_built_within_a_limit_passes_the_check_of_that_limit(
        codec in codec(),
        records in records(),
        max_bytes in 10_000..60_000_usize,
    ) {
        let mut builder = BatchBuilder::new(codec, max_bytes);
        for record in &records {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            let _ = builder.push(key, value, &record.headers, record.timestamp_ms);
        }
        prop_assert!(builder.bytes_len() <= max_bytes);
        let count = builder.record_count();
        if count > 0 {
            let batch = BatchView::check(builder.build(), &Limits::new(max_bytes as u32)).unwrap();
            prop_assert_eq!(batch.records(max_bytes).unwrap().len(), count);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        read(bytes.into());
    }

    #[test]
    fn arbitrary_blocks_behind_a_sound_header_never_panic(
        codec in codec(),
        counts in prop_oneof![Just(1_i32), any::<i32>()],
        block in vec(any::<u8>(), 0..300),
    ) {
        let header = build(Compression::None, &[empty_record()]);
        let mut bytes = header[..HEADER_BYTES].to_vec();
        bytes[22] = codec.number();
        bytes[23..27].copy_from_slice(&counts.wrapping_sub(1).to_be_bytes());
        bytes[57..61].copy_from_slice(&counts.to_be_bytes());
        bytes.extend_from_slice(&block);
        read(sealed(bytes));
    }

    #[test]
    fn damaged_batches_with_a_crc_to_match_never_panic(
        codec in codec(),
        records in records(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = build(codec, &records).to_vec();
        for (at, value) in damage {
            let at = 21 + at.index(bytes.len() - 21);
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(HEADER_BYTES + cut.index(bytes.len() - HEADER_BYTES));
        }
        read(sealed(bytes));
    }
}

fn empty_record() -> Record {
    Record {
        offset_delta: 0,
        timestamp_ms: 0,
        key: None,
        value: None,
        headers: Vec::new(),
    }
}

fn sealed(mut bytes: Vec<u8>) -> Bytes {
    let length = bytes.len() as i32 - 12;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}
