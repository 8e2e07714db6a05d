//! Decompression in steps, and the checks on the records of a compressed batch.

#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, as tests do

use bytes::Bytes;
use proptest::prelude::*;
use ropewalk_proto::batch::{
    BatchBuilder, BatchError, BatchView, Compression, HEADER_BYTES, Limits,
};
use ropewalk_proto::error::ErrorCode;

const LIMITS: Limits = Limits::new(16 << 20);
const ROOM: usize = 16 << 20;

fn batch(codec: Compression, values: &[Vec<u8>]) -> BatchView {
    let mut builder = BatchBuilder::new(codec, ROOM);
    for (at, value) in (0..).zip(values) {
        assert!(builder.push(None, Some(value), &[], 1_000 + at).unwrap());
    }
    BatchView::check(builder.build(), &LIMITS).unwrap()
}

/// A correct header and CRC over records that were changed before compression.
fn changed(codec: Compression, change: impl FnOnce(&mut Vec<u8>)) -> BatchView {
    let plain = batch(
        Compression::None,
        &[vec![7; 300], vec![8; 300], vec![9; 300]],
    );
    let mut payload = plain.bytes()[HEADER_BYTES..].to_vec();
    change(&mut payload);
    with_payload(codec, &plain, &payload)
}

fn with_payload(codec: Compression, header: &BatchView, payload: &[u8]) -> BatchView {
    let packed = match codec {
        Compression::Zstd => zstd::bulk::compress(payload, 3).unwrap(),
        Compression::Snappy => snap::raw::Encoder::new().compress_vec(payload).unwrap(),
        other => panic!("{other} is not used here"),
    };
    let mut bytes = header.bytes()[..HEADER_BYTES].to_vec();
    bytes[22] = codec.number();
    bytes.extend_from_slice(&packed);
    sealed(bytes)
}

fn sealed(mut bytes: Vec<u8>) -> BatchView {
    let length = bytes.len() as i32 - 12;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    BatchView::check(bytes.into(), &LIMITS).unwrap()
}

fn unpacked(batch: &BatchView, step: usize) -> Result<Bytes, BatchError> {
    let mut unpacking = batch.unpacking(ROOM)?;
    while !unpacking.step(step)? {}
    Ok(unpacking.into_payload())
}

fn checked(batch: &BatchView, limits: &Limits) -> Result<(), BatchError> {
    batch.check_records(&unpacked(batch, ROOM)?, limits)
}

#[test]
fn records_that_nobody_could_read_do_not_pass_under_a_good_crc() {
    for codec in [Compression::Zstd, Compression::Snappy] {
        assert_eq!(checked(&changed(codec, |_| {}), &LIMITS), Ok(()));
        let garbage = changed(codec, |payload| payload.fill(0xff));
        let short = changed(codec, |payload| payload.truncate(payload.len() - 1));
        let long = changed(codec, |payload| payload.push(0));
        let fewer = changed(codec, |payload| payload.truncate(payload.len() / 3));
        let order = changed(codec, |payload| payload[4] = 6);
        for bad in [garbage, short, long, fewer, order] {
            let error = checked(&bad, &LIMITS).unwrap_err();
            assert_eq!(error.code(), ErrorCode::CorruptBatch, "{error}");
        }
    }
}

#[test]
fn bytes_that_are_no_compression_do_not_pass_under_a_good_crc() {
    for codec in Compression::ALL.into_iter().skip(1) {
        let mut bytes = batch(codec, &[vec![7; 300]]).bytes().to_vec();
        bytes[HEADER_BYTES..].fill(0xa5);
        let error = checked(&sealed(bytes), &LIMITS).unwrap_err();
        assert!(matches!(error, BatchError::Compressed { .. }), "{error}");
    }
}

#[test]
fn bytes_behind_the_compressed_records_do_not_pass() {
    for codec in Compression::ALL.into_iter().skip(1) {
        let whole = batch(codec, &[vec![7; 300], vec![8; 300]]);
        assert_eq!(checked(&whole, &LIMITS), Ok(()));
        for behind in [&b"\xa5"[..], &[0xa5; 1_000]] {
            let mut bytes = whole.bytes().to_vec();
            bytes.extend_from_slice(behind);
            let error = checked(&sealed(bytes), &LIMITS).unwrap_err();
            assert_eq!(error.code(), ErrorCode::CorruptBatch, "{codec}: {error}");
        }
    }
}

#[test]
fn the_latest_timestamp_of_the_header_is_that_of_the_records() {
    for codec in [Compression::None, Compression::Zstd] {
        let whole = batch(codec, &[vec![7; 300], vec![8; 300]]);
        for stated_ms in [1_000_i64, 1_002, i64::MAX] {
            let mut bytes = whole.bytes().to_vec();
            bytes[35..43].copy_from_slice(&stated_ms.to_be_bytes());
            let length = bytes.len() - HEADER_BYTES;
            let crc = crc32c::crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            let error = BatchView::check(bytes.into(), &LIMITS);
            let error = error.and_then(|batch| checked(&batch, &LIMITS));
            assert_eq!(
                error,
                Err(BatchError::MaxTimestamp {
                    stated_ms,
                    actual_ms: 1_001
                }),
                "{codec}, {length} bytes"
            );
        }
    }
}

#[test]
fn the_first_record_past_the_latest_time_is_named() {
    let limits = |latest_timestamp_ms| Limits {
        latest_timestamp_ms,
        ..LIMITS
    };
    let records = [vec![7; 300], vec![8; 300], vec![9; 300]];
    let compressed = batch(Compression::Zstd, &records);
    assert_eq!(checked(&compressed, &limits(1_002)), Ok(()));
    let error = checked(&compressed, &limits(1_000)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidTimestamp);
    let said = error.to_string();
    assert!(
        said.contains("record 1 ") && said.contains("1001") && said.contains("1000"),
        "{said}"
    );
    let plain = batch(Compression::None, &records).into_bytes();
    assert_eq!(BatchView::check(plain, &limits(1_000)), Err(error));
}

#[test]
fn no_more_is_unpacked_in_a_step_than_was_asked_for() {
    for codec in Compression::ALL.into_iter().skip(1) {
        let bomb = batch(codec, &[vec![0; 8 << 20]]);
        let mut unpacking = bomb.unpacking(ROOM).unwrap();
        for step in 1..=8 {
            assert_eq!(unpacking.step(1 << 20), Ok(false), "{codec}");
            // Snappy decompresses in blocks of 32 KiB.
            let most = step * ((1 << 20) + (32 << 10));
            assert!(unpacking.unpacked_bytes() <= most, "{codec}");
        }
    }
}

#[test]
fn a_bomb_is_stopped_at_the_bound_and_takes_no_memory_past_it() {
    for codec in Compression::ALL.into_iter().skip(1) {
        let bomb = batch(codec, &[vec![0; 8 << 20]]);
        let limit = 3 << 20;
        let mut unpacking = bomb.unpacking(limit).unwrap();
        let error = loop {
            match unpacking.step(1 << 20) {
                Ok(whole) => assert!(!whole),
                Err(error) => break error,
            }
        };
        assert_eq!(error, BatchError::Expands { codec, limit });
        assert!(unpacking.unpacked_bytes() <= limit + 1, "{codec}");
    }
}

proptest! {
    #[test]
    fn in_how_many_steps_it_is_unpacked_does_not_show(
        codec in 0_usize..5,
        step in 1_usize..100_000,
        values in proptest::collection::vec(proptest::collection::vec(0_u8..4, 0..20_000), 1..8),
    ) {
        let batch = batch(Compression::ALL[codec], &values);
        let whole = unpacked(&batch, usize::MAX).unwrap();
        prop_assert_eq!(&unpacked(&batch, step).unwrap(), &whole);
        let records: Result<Vec<_>, _> = batch.records_of(whole).collect();
        prop_assert_eq!(records, batch.records(ROOM));
    }
}
