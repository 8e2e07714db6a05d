//! Any bytes as a record batch: checks, decompression, records, and the removal of records.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ropewalk_fuzz::write_seeds;
use ropewalk_proto::batch::{BatchBuilder, BatchView, Compression, HEADER_BYTES, Limits, Record};

const MAX_UNPACKED_BYTES: usize = 1 << 20;
const STEP_BYTES: usize = 4 << 10;

fuzz_target!(init: write_seeds(seeds()), |data: &[u8]| {
    read(Bytes::copy_from_slice(data));
    // Length and checksum stop nearly all inputs, so each is read once with the right ones.
    if let Some(corrected) = corrected(data) {
        read(corrected);
    }
});

fn seeds() -> Vec<Vec<u8>> {
    let batch = |compression| {
        let mut builder = BatchBuilder::new(compression, 64 << 10);
        builder.set_producer(7, 1, 0);
        for number in 0..20 {
            let (key, value) = (format!("key-{}", number % 3), "value ".repeat(number));
            let pushed = builder.push(Some(key.as_bytes()), Some(value.as_bytes()), &[], 1_000);
            assert_eq!(pushed, Ok(true));
        }
        builder.build().to_vec()
    };
    Compression::ALL.into_iter().map(batch).collect()
}

fn corrected(data: &[u8]) -> Option<Bytes> {
    let mut batch = data.to_vec();
    let length = i32::try_from(data.len().checked_sub(12)?).ok()?;
    if data.len() < HEADER_BYTES {
        return None;
    }
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    Some(batch.into())
}

fn read(bytes: Bytes) {
    let limits = Limits::new(1 << 20);
    let _ = BatchView::unchecked_producer_id(&bytes);
    if let Ok(batch) = BatchView::check(bytes.clone(), &limits) {
        open(&batch, Some(&limits));
    }
    if let Ok(batch) = BatchView::trusted(bytes) {
        open(&batch, None);
    }
}

/// Decompresses a batch and reads its records. With limits, the batch has passed its checks.
fn open(batch: &BatchView, limits: Option<&Limits>) {
    let Ok(mut unpacking) = batch.unpacking(MAX_UNPACKED_BYTES) else {
        return;
    };
    while let Ok(is_done) = unpacking.step(STEP_BYTES) {
        assert!(unpacking.unpacked_bytes() <= MAX_UNPACKED_BYTES);
        if is_done {
            let payload = unpacking.into_payload();
            let is_sound = limits.is_some_and(|it| batch.check_records(&payload, it).is_ok());
            return records(batch, &payload, is_sound);
        }
    }
}

/// Reads the records, and removes every second one. All records of a sound batch can be read.
fn records(batch: &BatchView, payload: &Bytes, is_sound: bool) {
    let read: Result<Vec<Record>, _> = batch.records_of(payload.clone()).collect();
    if is_sound {
        let count = read.as_ref().map(Vec::len).ok();
        assert_eq!(count, usize::try_from(batch.record_count()).ok());
    }
    let all = batch.records_of(payload.clone());
    let kept = batch.retain(all, batch.last_offset_delta(), |record| {
        record.offset_delta % 2 == 0
    });
    if let Ok(Some(kept)) = kept {
        let kept = BatchView::trusted(kept).expect("a batch");
        assert_eq!(kept.check_crc(), Ok(()));
        assert_eq!(kept.producer_id(), batch.producer_id());
        assert_eq!(kept.last_offset_delta(), batch.last_offset_delta());
    }
}
