//! Batches that a broker must refuse, bytes that a reader must survive, and content that must pass
//! unchanged.

#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, as tests do

use bytes::{BufMut, Bytes};
use ropewalk_proto::batch::{
    BatchBuilder, BatchError, BatchView, Compression, HEADER_BYTES, Header, Limits,
};
use ropewalk_proto::error::ErrorCode;

const LIMITS: Limits = Limits::new(1 << 20);
const MAX_DECOMPRESSED_BYTES: usize = 1 << 20;

const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const PRODUCER_ID: usize = 43;
const RECORD_COUNT: usize = 57;

fn batch(compression: Compression, records: usize) -> Bytes {
    let mut builder = BatchBuilder::new(compression, 1 << 20);
    let headers = [Header {
        key: "header".to_owned(),
        value: Some(Bytes::from_static(b"header's value")),
    }];
    for i in 0..records {
        let value = format!("value value value {i}");
        let added = builder.push(
            Some(b"key"),
            Some(value.as_bytes()),
            &headers,
            1_000 + i as i64,
        );
        assert_eq!(added, Ok(true));
    }
    builder.build()
}

/// The batch with some bytes replaced, and with the length and CRC to match.
fn altered(batch: &Bytes, at: usize, new: &[u8]) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    sealed(bytes)
}

fn sealed(mut bytes: Vec<u8>) -> Bytes {
    let length = bytes.len() as i32 - 12;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[ATTRIBUTES..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// A sealed batch of one record whose compressed block is `block`.
fn with_block(compression: Compression, block: &[u8]) -> Bytes {
    let mut bytes = batch(Compression::None, 1)[..HEADER_BYTES].to_vec();
    bytes[ATTRIBUTES + 1] = compression.number();
    bytes.extend_from_slice(block);
    sealed(bytes)
}

fn refusal(bytes: Bytes) -> BatchError {
    BatchView::check(bytes, &LIMITS).unwrap_err()
}

#[test]
fn every_flipped_bit_is_noticed_save_in_what_the_log_assigns() {
    for compression in Compression::ALL {
        let good = batch(compression, 20);
        assert_eq!(
            BatchView::check(good.clone(), &LIMITS)
                .unwrap()
                .compression(),
            compression
        );
        for at in (8..12).chain(16..good.len()) {
            for bit in 0..8 {
                let mut bad = good.to_vec();
                bad[at] ^= 1 << bit;
                let result = BatchView::check(bad.into(), &LIMITS);
                assert!(
                    result.is_err(),
                    "byte {at} bit {bit} of a {compression} batch"
                );
            }
        }
    }
}

#[test]
fn what_the_log_assigns_may_be_anything() {
    let mut bytes = batch(Compression::None, 1).to_vec();
    bytes[..8].copy_from_slice(&[0xab; 8]);
    bytes[12..16].copy_from_slice(&[0xcd; 4]);
    assert!(BatchView::check(bytes.into(), &LIMITS).is_ok());
}

#[test]
fn a_batch_cut_short_anywhere_is_refused() {
    let good = batch(Compression::None, 3);
    for length in 0..good.len() {
        let error = refusal(good.slice(..length));
        if length < HEADER_BYTES {
            assert_eq!(error, BatchError::Truncated { bytes: length });
        } else {
            assert!(matches!(error, BatchError::Length { .. }));
        }
        assert_eq!(error.code(), ErrorCode::CorruptBatch);
    }
}

#[test]
fn a_batch_with_bytes_after_it_is_refused() {
    let mut bytes = batch(Compression::None, 3).to_vec();
    bytes.push(0);
    assert!(matches!(refusal(bytes.into()), BatchError::Length { .. }));
}

#[test]
fn a_damaged_record_is_a_crc_error() {
    let mut bytes = batch(Compression::None, 3).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let error = refusal(bytes.into());
    assert!(matches!(error, BatchError::Crc { .. }));
    assert_eq!(error.code(), ErrorCode::CorruptBatch);
}

#[test]
fn an_older_record_format_is_refused() {
    let mut bytes = batch(Compression::None, 3).to_vec();
    bytes[16] = 1;
    let error = refusal(bytes.into());
    assert_eq!(error, BatchError::Magic(1));
    assert_eq!(error.code(), ErrorCode::UnsupportedVersion);
}

#[test]
fn a_batch_of_the_limit_passes_and_one_byte_more_does_not() {
    let bytes = batch(Compression::None, 3);
    let limits = |max_batch_bytes: usize| Limits::new(max_batch_bytes as u32);
    assert!(BatchView::check(bytes.clone(), &limits(bytes.len())).is_ok());
    let error = BatchView::check(bytes.clone(), &limits(bytes.len() - 1)).unwrap_err();
    let (bytes, limit) = (bytes.len(), bytes.len() - 1);
    assert_eq!(error, BatchError::BatchTooLarge { bytes, limit });
    assert_eq!(error.code(), ErrorCode::TooLarge);
}

#[test]
fn more_records_than_the_limit_are_refused() {
    let limits = Limits {
        max_records: 2,
        ..LIMITS
    };
    assert!(BatchView::check(batch(Compression::None, 2), &limits).is_ok());
    let error = BatchView::check(batch(Compression::None, 3), &limits).unwrap_err();
    assert_eq!(error, BatchError::TooManyRecords { count: 3, limit: 2 });
}

#[test]
fn counts_that_do_not_agree_are_refused() {
    let good = batch(Compression::Zstd, 20);
    for count in [0_i32, -1, 19, 21, i32::MIN, i32::MAX] {
        let error = refusal(altered(&good, RECORD_COUNT, &count.to_be_bytes()));
        assert!(
            matches!(error, BatchError::Count { .. }),
            "{count}: {error}"
        );
    }
    for delta in [-1_i32, 0, 18, 20, i32::MAX] {
        let error = refusal(altered(&good, LAST_OFFSET_DELTA, &delta.to_be_bytes()));
        assert!(
            matches!(error, BatchError::Count { .. }),
            "{delta}: {error}"
        );
    }
    let mut none = good.to_vec();
    none[RECORD_COUNT..RECORD_COUNT + 4].copy_from_slice(&0_i32.to_be_bytes());
    none[LAST_OFFSET_DELTA..LAST_OFFSET_DELTA + 4].copy_from_slice(&(-1_i32).to_be_bytes());
    assert!(matches!(refusal(sealed(none)), BatchError::Count { .. }));
}

#[test]
fn a_count_the_uncompressed_records_do_not_bear_out_is_refused() {
    let mut bytes = batch(Compression::None, 3).to_vec();
    for (count, delta) in [(2_i32, 1_i32), (4, 3), (1_000, 999)] {
        bytes[RECORD_COUNT..RECORD_COUNT + 4].copy_from_slice(&count.to_be_bytes());
        bytes[LAST_OFFSET_DELTA..LAST_OFFSET_DELTA + 4].copy_from_slice(&delta.to_be_bytes());
        let error = refusal(sealed(bytes.clone()));
        assert_eq!(error.code(), ErrorCode::CorruptBatch, "{error}");
    }
}

#[test]
fn uncompressed_records_out_of_order_are_refused() {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    for _ in 0..2 {
        assert_eq!(builder.push(None, None, &[], 0), Ok(true));
    }
    // A record of seven bytes: its length, attributes, timestamp delta, offset delta, and the rest.
    let good = builder.build();
    let second_delta = HEADER_BYTES + 7 + 3;
    assert_eq!(good[second_delta], 2, "1 as a varint");
    for delta in [0, 1, 4] {
        let error = refusal(altered(&good, second_delta, &[delta]));
        assert!(
            matches!(error, BatchError::Record { index: 1, .. }),
            "{error}"
        );
    }
}

#[test]
fn attributes_that_are_not_a_clients_to_set_are_refused() {
    let good = batch(Compression::None, 1);
    let refused = |attributes: i16| refusal(altered(&good, ATTRIBUTES, &attributes.to_be_bytes()));
    assert_eq!(refused(0x20), BatchError::Control);
    assert_eq!(refused(0x30), BatchError::Control);
    assert_eq!(refused(0x10), BatchError::Transactional);
    for bit in [3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] {
        let bits = (1_u16 << bit) as i16;
        assert_eq!(refused(bits), BatchError::Attributes(bits));
    }
    for codec in [5, 6, 7] {
        assert_eq!(refused(codec), BatchError::Codec(codec as u8));
    }
}

#[test]
fn a_producer_id_without_epoch_and_sequence_is_refused() {
    let good = batch(Compression::None, 1);
    let identified = BatchView::check(good.clone(), &LIMITS)
        .unwrap()
        .with_producer(5, 0, 0);
    let identified = BatchView::check(identified, &LIMITS).unwrap();
    for (id, epoch, sequence) in [(5, -1, 0), (5, 0, -1), (-2, 0, 0), (i64::MIN, -1, -1)] {
        let error = refusal(identified.with_producer(id, epoch, sequence));
        assert!(matches!(error, BatchError::Producer { .. }), "{error}");
    }
    assert!(
        BatchView::check(
            altered(&good, PRODUCER_ID, &(-1_i64).to_be_bytes()),
            &LIMITS
        )
        .is_ok()
    );
}

#[test]
fn a_new_producer_identity_changes_nothing_else() {
    let before = BatchView::check(batch(Compression::Lz4, 20), &LIMITS).unwrap();
    let after = BatchView::check(before.with_producer(7, 2, 30), &LIMITS).unwrap();
    assert_eq!(after.producer_id(), 7);
    assert_eq!(after.producer_epoch(), 2);
    assert_eq!(after.base_sequence(), 30);
    assert_eq!(
        after.records(MAX_DECOMPRESSED_BYTES),
        before.records(MAX_DECOMPRESSED_BYTES)
    );
}

#[test]
fn a_patched_head_carries_the_logs_offset_and_epoch_and_the_batch_stays_whole() {
    let batch = BatchView::check(batch(Compression::None, 3), &LIMITS).unwrap();
    for (offset, epoch, shown) in [(0, 0, 0), (42, 7, 7), (1 << 40, u64::MAX, i32::MAX)] {
        let mut bytes = batch.patch_head(offset, epoch).to_vec();
        bytes.extend_from_slice(&batch.bytes()[16..]);
        let patched = BatchView::check(bytes.into(), &LIMITS).unwrap();
        assert_eq!(patched.base_offset(), offset as i64);
        assert_eq!(patched.leader_epoch(), shown);
    }
}

#[test]
fn a_decompression_bomb_is_stopped_at_the_bound() {
    let bombs = Compression::ALL.into_iter().skip(1).map(|compression| {
        let mut builder = BatchBuilder::new(compression, 128 << 20);
        let zeros = vec![0; 64 << 20];
        assert_eq!(builder.push(None, Some(&zeros), &[], 0), Ok(true));
        (compression, builder.build())
    });
    for (codec, bomb) in bombs {
        let batch = BatchView::check(bomb, &Limits::new(16 << 20)).unwrap();
        let limit = 1 << 20;
        let error = batch.records(limit).unwrap_err();
        assert_eq!(error, BatchError::Expands { codec, limit });
        assert_eq!(error.code(), ErrorCode::TooLarge);
    }
}

#[test]
fn records_that_decompress_to_exactly_the_bound_are_read() {
    for compression in Compression::ALL.into_iter().skip(1) {
        let plain = batch(Compression::None, 100).len() - HEADER_BYTES;
        let batch = BatchView::check(batch(compression, 100), &LIMITS).unwrap();
        assert_eq!(batch.records(plain).unwrap().len(), 100);
        assert_eq!(batch.records(usize::MAX).unwrap().len(), 100);
        assert!(matches!(
            batch.records(plain - 1),
            Err(BatchError::Expands { .. })
        ));
    }
}

#[test]
fn a_snappy_length_that_can_not_be_is_refused_before_memory_is_taken() {
    // A raw block that claims 512 MiB, and a xerial block that claims a length of 2 GiB.
    let raw = with_block(Compression::Snappy, &[0x80, 0x80, 0x80, 0x80, 0x02, 0, 0]);
    let mut block = b"\x82SNAPPY\0".to_vec();
    block.put_i32(1);
    block.put_i32(1);
    block.put_i32(i32::MAX);
    let xerial = with_block(Compression::Snappy, &block);
    for bytes in [raw, xerial] {
        let batch = BatchView::check(bytes, &LIMITS).unwrap();
        let error = batch.records(usize::MAX).unwrap_err();
        assert!(matches!(error, BatchError::Compressed { .. }), "{error}");
    }
}

#[test]
fn raw_snappy_without_framing_is_read_too() {
    let plain = batch(Compression::None, 1);
    let block = snap::raw::Encoder::new()
        .compress_vec(&plain[HEADER_BYTES..])
        .unwrap();
    let batch = BatchView::check(with_block(Compression::Snappy, &block), &LIMITS).unwrap();
    let plain = BatchView::check(plain, &LIMITS).unwrap();
    assert_eq!(
        batch.records(MAX_DECOMPRESSED_BYTES),
        plain.records(MAX_DECOMPRESSED_BYTES)
    );
}

#[test]
fn a_zstd_window_over_the_bound_is_refused() {
    // A frame header with a window descriptor of 2 GiB, and an empty last block.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
    let batch = BatchView::check(with_block(Compression::Zstd, &frame), &LIMITS).unwrap();
    let error = batch.records(MAX_DECOMPRESSED_BYTES).unwrap_err();
    assert!(matches!(error, BatchError::Compressed { .. }), "{error}");
}

#[test]
fn a_full_batch_says_so_and_an_impossible_record_is_an_error() {
    let mut builder = BatchBuilder::new(Compression::None, 200);
    assert_eq!(builder.push(None, Some(&[1; 100]), &[], 0), Ok(true));
    let before = builder.bytes_len();
    assert_eq!(builder.push(None, Some(&[2; 100]), &[], 0), Ok(false));
    let error = builder.push(None, Some(&[3; 200]), &[], 0).unwrap_err();
    assert!(matches!(
        error,
        BatchError::RecordTooLarge { limit: 200, .. }
    ));
    assert_eq!(builder.bytes_len(), before);
    assert_eq!(builder.record_count(), 1);
    let batch = BatchView::check(builder.build(), &Limits::new(200)).unwrap();
    assert_eq!(batch.records(0).unwrap().len(), 1);
}

#[test]
fn records_that_do_not_shrink_stay_uncompressed() {
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new(compression, 1 << 20);
        assert_eq!(builder.push(Some(b"k"), None, &[], 5), Ok(true));
        let batch = BatchView::check(builder.build(), &LIMITS).unwrap();
        assert_eq!(batch.compression(), Compression::None);
    }
}

#[test]
fn a_builder_without_records_builds_nothing() {
    let builder = BatchBuilder::new(Compression::None, 1 << 20);
    assert!(builder.is_empty());
    assert!(builder.build().is_empty());
}

#[test]
fn a_compacted_batch_keeps_the_offsets_its_records_had() {
    let whole = BatchView::check(batch(Compression::None, 3), &LIMITS).unwrap();
    let one = batch(Compression::None, 1).len() - HEADER_BYTES;
    let mut compacted = whole.bytes().to_vec();
    compacted.drain(HEADER_BYTES + one..HEADER_BYTES + 2 * one);
    compacted[RECORD_COUNT..RECORD_COUNT + 4].copy_from_slice(&2_i32.to_be_bytes());
    let compacted = sealed(compacted);
    assert!(matches!(
        refusal(compacted.clone()),
        BatchError::Count { .. }
    ));
    let records = BatchView::trusted(compacted).unwrap().records(0).unwrap();
    let deltas: Vec<i32> = records.iter().map(|record| record.offset_delta).collect();
    assert_eq!(deltas, [0, 2]);
}

#[test]
fn damage_to_a_kept_batch_is_found_when_asked_for() {
    let good = batch(Compression::None, 3);
    assert_eq!(
        BatchView::trusted(good.clone()).unwrap().check_crc(),
        Ok(())
    );
    let mut bad = good.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    let bad = BatchView::trusted(bad.into()).unwrap();
    assert!(matches!(bad.check_crc(), Err(BatchError::Crc { .. })));
}

#[test]
fn codec_names_read_back() {
    for codec in Compression::ALL {
        assert_eq!(codec.name().parse(), Ok(codec));
        assert_eq!(Compression::from_number(codec.number()), Some(codec));
    }
    assert!("lzma".parse::<Compression>().is_err());
}
