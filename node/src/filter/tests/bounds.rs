//! Tests of each limit, and of batches that have lost records.

use super::*;

#[test]
fn so_many_patterns_are_taken_and_no_more() {
    let patterns = |count: usize| {
        let calls: Vec<String> = (0..count).map(|n| format!("key.matches('{n}')")).collect();
        calls.join(" || ")
    };
    assert!(Filter::compile(&patterns(8)).is_ok());
    assert!(refused(&patterns(9)).contains("more than 8 patterns"));
}

/// Returns the batch as compaction leaves it, without its last records.
fn without(bytes: &Bytes, gone: std::ops::RangeFrom<i32>) -> Bytes {
    let view = BatchView::trusted(bytes.clone()).unwrap();
    let records = view.iter_records(1 << 20).unwrap();
    let left = view.retain(records, i32::MAX, |record| {
        !gone.contains(&record.offset_delta)
    });
    left.unwrap().unwrap()
}

#[test]
fn a_reader_goes_past_what_compaction_took_and_gets_no_batch_of_nothing() {
    for codec in Compression::ALL {
        let whole = batch(codec, "aab");
        for (filter, gone, expected) in [
            ("true", 0, vec![]),
            ("true", 1, vec![100]),
            ("type == 'a'", 2, vec![100, 101]),
            ("type == 'b'", 2, vec![]),
        ] {
            let left = without(&whole, gone..);
            let filter = Filter::compile(filter).unwrap();
            let mut budget = Budget::ample();
            let outcome = apply(&filter, &left, 100, &mut budget).unwrap();
            assert_eq!(outcome.next_offset, 103, "the end of the batch");
            let offsets = outcome.batch.map_or(Vec::new(), |left| {
                let records = BatchView::trusted(left).unwrap().records(1 << 20);
                let offset = |record: &Record| 100 + record.offset_delta as u64;
                let offsets: Vec<u64> = records.unwrap().iter().map(offset).collect();
                assert!(!offsets.is_empty(), "a batch of nothing");
                offsets
            });
            assert_eq!(offsets, expected);
        }
    }
}

#[test]
fn a_batch_that_is_cut_or_too_large_is_an_error_and_not_skipped() {
    let mut cut = batch(Compression::None, "aaaa").to_vec();
    cut.truncate(cut.len() - 7);
    let length = (cut.len() as i32 - 12).to_be_bytes();
    cut[8..12].copy_from_slice(&length);
    let mut large = BatchBuilder::new(Compression::Zstd, 64 << 20);
    assert!(large.push(None, Some(&vec![0; 17 << 20]), &[], 7).unwrap());
    for bytes in [Bytes::from(cut), large.build()] {
        let filter = Filter::compile("offset >= 0").unwrap();
        let mut budget = Budget::ample();
        let refused = apply(&filter, &bytes, 100, &mut budget);
        assert_eq!(refused.unwrap_err().code, ErrorCode::CorruptBatch);
    }
}
