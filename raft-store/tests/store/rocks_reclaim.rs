//! The space of deleted data is reclaimed, even in files that also hold live data.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use ropewalk_raft_store::disk::rocks::{ReclaimOptions, RocksDisk, RocksOptions};
use ropewalk_raft_store::disk::{Change, ChangeBatch, Disk};

const VALUE_BYTES: usize = 64 << 10;
const VALUES: u32 = 600;

fn key(part: &str, number: u32) -> Bytes {
    format!("{part}{number:08}").into()
}

fn value(number: u32) -> Bytes {
    let mut state = number.wrapping_mul(0x9E37_79B9) | 1;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    });
    bytes.take(VALUE_BYTES).collect()
}

fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("the database");
    let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    sizes.sum()
}

fn one(change: Change) -> ChangeBatch {
    ChangeBatch {
        changes: vec![change],
    }
}

#[tokio::test]
async fn files_shared_with_what_is_still_wanted_give_their_space_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = RocksOptions {
        database_bytes: 64 << 20,
        reclaim: ReclaimOptions {
            every: Duration::from_millis(50),
            garbage_bytes: 1 << 20,
        },
    };
    let disk = RocksDisk::open(dir.path(), options).expect("opens");
    for number in 0..VALUES {
        // Every tenth value is kept, so each file holds one.
        let part = if number % 10 == 0 { "keep" } else { "drop" };
        let put = Change::Put {
            key: key(part, number),
            head: Bytes::new(),
            body: value(number),
        };
        disk.commit(one(put), false).await.expect("a commit");
    }
    let before = size(dir.path());
    let range = key("drop", 0)..key("drop", VALUES);
    let batch = one(Change::DeleteRange { range });
    disk.commit(batch, true).await.expect("a commit");

    let wanted = u64::from(VALUES) * VALUE_BYTES as u64 / 10;
    let reclaimed = async {
        while size(dir.path()) > 3 * wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), reclaimed).await;
    let after = size(dir.path());
    assert!(
        waited.is_ok(),
        "{before} bytes before, {after} after, {wanted} wanted"
    );
    for number in (0..VALUES).step_by(10) {
        let read = disk.get(key("keep", number)).await.expect("a read");
        assert_eq!(read, Some(value(number)), "value {number}");
    }
}
