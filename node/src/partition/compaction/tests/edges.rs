//! Where compaction has its bounds.

use super::*;

#[test]
fn a_batch_that_unpacks_to_more_than_the_bound_is_refused() {
    let value = vec![0; 33 << 20];
    let mut batch = BatchBuilder::new(Compression::Zstd, 64 << 20);
    assert!(batch.push(Some(b"a"), Some(&value), &[], 0).unwrap());
    let error = check(&BatchView::trusted(batch.build()).unwrap()).unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge, "{error}");
    assert!(error.message.contains("smaller batches"), "{error}");
}
