//! Other tasks get their turns while a log is compacted.

use std::sync::atomic::{AtomicU64, Ordering};

use ropewalk_machines::log::ScanStart;

use super::super::rewrite::{Left, UNPACKED_IN_ONE_GO_BYTES, walk};
use super::*;

const BATCHES: u64 = 40;
const VALUE_BYTES: usize = 900 << 10;

#[tokio::test]
async fn others_have_their_turn_though_a_chunk_holds_a_hundred_times_its_length() {
    let mut lone = Lone::new().await;
    let value = "v".repeat(VALUE_BYTES);
    for _ in 0..BATCHES {
        lone.append(Compression::Zstd, &[("a", Some(&value))]).await;
    }
    let turns = Arc::new(AtomicU64::new(0));
    let others = turns.clone();
    let others = tokio::spawn(async move {
        loop {
            others.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let mut in_one_go: BTreeMap<u64, usize> = BTreeMap::new();
    let from = ScanStart {
        log_index: 0,
        base_offset: 0,
    };
    let walked = walk(&lone.replica.view, from, BATCHES, PLENTY, |_, batch| {
        *in_one_go.entry(turns.load(Ordering::Relaxed)).or_default() += 1;
        Left {
            batch: None,
            unpacked_bytes: batch.iter_records(1 << 20).unwrap().payload_bytes(),
        }
    });
    let walked = walked.await.unwrap();
    others.abort();
    assert!(walked.before_bytes < 1 << 20, "one chunk: {walked:?}");
    assert_eq!(in_one_go.values().sum::<usize>(), BATCHES as usize);
    let most = in_one_go.values().max();
    assert_eq!(most, Some(&UNPACKED_IN_ONE_GO_BYTES.div_ceil(VALUE_BYTES)));
}
