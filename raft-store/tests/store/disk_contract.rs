//! The contract of every [`Disk`], run on each implementation.

use std::ops::Range;

use bytes::Bytes;
use ropewalk_raft_store::disk::rocks::{Directory, Env, Inline, RocksDisk, RocksOptions};
use ropewalk_raft_store::disk::{Change, ChangeBatch, Disk, MemoryDisk, ScanLimit};

const EVERYTHING: ScanLimit = ScanLimit {
    max_bytes: usize::MAX,
    max_pairs: usize::MAX,
};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> Change {
    Change::Put {
        key: bytes(key),
        head: Bytes::new(),
        body: bytes(value),
    }
}

fn delete(key: &str) -> Change {
    Change::Delete { key: bytes(key) }
}

fn range(start: &str, end: &str) -> Range<Bytes> {
    bytes(start)..bytes(end)
}

fn delete_range(start: &str, end: &str) -> Change {
    Change::DeleteRange {
        range: range(start, end),
    }
}

async fn commit(disk: &dyn Disk, changes: impl Into<Vec<Change>>) {
    let batch = ChangeBatch {
        changes: changes.into(),
    };
    disk.commit(batch, true).await.expect("a commit");
}

/// The keys of a scan, or the key of a last pair, as text.
fn keys(pairs: impl IntoIterator<Item = (Bytes, Bytes)>) -> Vec<String> {
    let keys = pairs.into_iter().map(|(key, _)| key);
    keys.map(|key| String::from_utf8_lossy(&key).into_owned())
        .collect()
}

async fn scan(disk: &dyn Disk, of: Range<Bytes>, limit: ScanLimit) -> Vec<String> {
    keys(disk.scan(of, limit).await.expect("a scan"))
}

async fn get(disk: &dyn Disk, key: &str) -> Option<Bytes> {
    disk.get(bytes(key)).await.expect("a read")
}

async fn keys_come_in_order_and_a_range_leaves_out_its_end(disk: &dyn Disk) {
    commit(
        disk,
        [
            put("b", "2"),
            put("a\u{0}", "1"),
            put("c", "3"),
            put("a", "0"),
        ],
    )
    .await;
    let all = scan(disk, range("", "z"), EVERYTHING).await;
    assert_eq!(all, ["a", "a\u{0}", "b", "c"]);
    assert_eq!(
        scan(disk, range("a\u{0}", "c"), EVERYTHING).await,
        ["a\u{0}", "b"]
    );
    let none = Vec::<String>::new();
    assert_eq!(scan(disk, range("b", "b"), EVERYTHING).await, none);
    assert_eq!(scan(disk, range("c", "a"), EVERYTHING).await, none);
    assert_eq!(scan(disk, range("d", "z"), EVERYTHING).await, none);
}

async fn a_scan_keeps_its_limits_but_its_first_pair_comes(disk: &dyn Disk) {
    commit(disk, [put("a", "0123456789"), put("b", "1"), put("c", "2")]).await;
    let limit = |max_bytes, max_pairs| ScanLimit {
        max_bytes,
        max_pairs,
    };
    let all = range("a", "z");
    assert_eq!(scan(disk, all.clone(), limit(0, 10)).await, ["a"]);
    assert_eq!(scan(disk, all.clone(), limit(12, 10)).await, ["a"]);
    assert_eq!(scan(disk, all.clone(), limit(13, 10)).await, ["a", "b"]);
    assert_eq!(scan(disk, all.clone(), limit(1_000, 2)).await, ["a", "b"]);
    assert_eq!(scan(disk, all, limit(15, 3)).await, ["a", "b", "c"]);
}

async fn the_last_pair_of_a_range_is_found(disk: &dyn Disk) {
    commit(disk, [put("a", "1"), put("c", "3"), put("e", "5")]).await;
    let last = async |start, end| keys(disk.last(range(start, end)).await.expect("a read"));
    assert_eq!(last("", "z").await, ["e"]);
    assert_eq!(last("a", "e").await, ["c"]);
    assert_eq!(last("a", "d").await, ["c"]);
    assert_eq!(last("d", "e").await, Vec::<String>::new());
    assert_eq!(last("e", "a").await, Vec::<String>::new());
    commit(disk, [delete("e"), delete_range("b", "d")]).await;
    assert_eq!(last("", "z").await, ["a"]);
}

async fn changes_of_a_batch_take_effect_in_order(disk: &dyn Disk) {
    commit(
        disk,
        [
            put("kept", "old"),
            put("kept", "new"),
            put("gone", "x"),
            delete("gone"),
            put("range1", "x"),
            delete_range("range", "range9"),
            put("range2", "back"),
            delete("never was"),
        ],
    )
    .await;
    assert_eq!(get(disk, "kept").await, Some(bytes("new")));
    assert_eq!(
        scan(disk, range("", "z"), EVERYTHING).await,
        ["kept", "range2"]
    );
}

async fn commits_take_effect_in_the_order_of_their_calls(disk: &dyn Disk) {
    // All commits are called before any is polled, and the last is awaited first.
    let commits: Vec<_> = (0..20)
        .map(|value: u8| {
            let batch = ChangeBatch {
                changes: vec![put("key", &value.to_string())],
            };
            disk.commit(batch, value.is_multiple_of(3))
        })
        .collect();
    for commit in commits.into_iter().rev() {
        commit.await.expect("a commit");
    }
    assert_eq!(get(disk, "key").await, Some(bytes("19")));
}

async fn a_deleted_range_takes_what_is_in_it_and_nothing_else(disk: &dyn Disk) {
    commit(
        disk,
        [
            put("a", "1"),
            put("b", "2"),
            put("b\u{0}", "3"),
            put("c", "4"),
        ],
    )
    .await;
    commit(disk, [delete_range("c", "a"), delete_range("b", "b")]).await;
    assert_eq!(scan(disk, range("", "z"), EVERYTHING).await.len(), 4);
    commit(disk, [delete_range("b", "c")]).await;
    assert_eq!(scan(disk, range("", "z"), EVERYTHING).await, ["a", "c"]);
    assert_eq!(get(disk, "b").await, None);
    commit(disk, [put("b", "again")]).await;
    assert_eq!(get(disk, "b").await, Some(bytes("again")));
}

async fn an_empty_value_is_a_value(disk: &dyn Disk) {
    commit(disk, [put("empty", "")]).await;
    assert_eq!(get(disk, "empty").await, Some(Bytes::new()));
    assert_eq!(get(disk, "missing").await, None);
    commit(disk, []).await;
    assert_eq!(scan(disk, range("", "z"), EVERYTHING).await, ["empty"]);
}

async fn a_large_value_in_two_parts_comes_back_as_one(disk: &dyn Disk) {
    let body: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let change = Change::Put {
        key: bytes("large"),
        head: bytes("head"),
        body: Bytes::from(body.clone()),
    };
    commit(disk, [change, put("later", "small")]).await;
    let expected = Bytes::from([b"head", body.as_slice()].concat());
    assert_eq!(get(disk, "large").await.as_ref(), Some(&expected));
    let pairs = disk.scan(range("", "z"), EVERYTHING).await.expect("a scan");
    assert_eq!(pairs.first().map(|(_, value)| value), Some(&expected));
    let last = disk.last(range("", "later")).await.expect("a read");
    assert_eq!(last.map(|(_, value)| value), Some(expected));
}

fn rocks(directory: &tempfile::TempDir) -> RocksDisk {
    let options = RocksOptions {
        database_bytes: 16 << 20,
        ..RocksOptions::default()
    };
    RocksDisk::open(directory.path(), options).expect("the database opens")
}

/// The same database, with nothing running beside its callers.
fn inline(directory: &tempfile::TempDir, flush_after_bytes: usize) -> RocksDisk {
    let mark = std::fs::File::create_new(directory.path().join("mark"));
    let path = directory.path().join("db");
    let inline = Inline {
        env: Env::new().expect("the system's files"),
        files: Box::new(Directory(path.clone())),
        mark: Box::new(mark.expect("a file")),
        is_new: true,
        flush_after_bytes,
    };
    RocksDisk::open_inline(&path, RocksOptions::default(), inline).expect("the database opens")
}

/// Runs each check on a new disk of each kind.
macro_rules! contract {
    ($($check:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $check() {
                super::$check(&super::MemoryDisk::new()).await;
            })*
        }
        mod rocks {
            $(#[tokio::test]
            async fn $check() {
                let directory = tempfile::tempdir().expect("a directory");
                super::$check(&super::rocks(&directory)).await;
            })*
        }
        mod inline {
            $(#[tokio::test]
            async fn $check() {
                // From memory, and from tables.
                for flush_after_bytes in [usize::MAX, 1] {
                    let directory = tempfile::tempdir().expect("a directory");
                    super::$check(&super::inline(&directory, flush_after_bytes)).await;
                }
            })*
        }
    };
}

contract!(
    keys_come_in_order_and_a_range_leaves_out_its_end,
    a_scan_keeps_its_limits_but_its_first_pair_comes,
    the_last_pair_of_a_range_is_found,
    changes_of_a_batch_take_effect_in_order,
    commits_take_effect_in_the_order_of_their_calls,
    a_deleted_range_takes_what_is_in_it_and_nothing_else,
    an_empty_value_is_a_value,
    a_large_value_in_two_parts_comes_back_as_one,
);

/// Writes like a run, with a value of each size class that is stored differently.
async fn fill(disk: &dyn Disk) {
    let large = "l".repeat(100_000);
    commit(disk, [put("empty", ""), put("large", &large)]).await;
    commit(disk, [put("gone", "x"), put("small", "s")]).await;
    commit(disk, [delete_range("g", "h")]).await;
}

async fn is_filled(disk: &dyn Disk) {
    assert_eq!(
        scan(disk, range("", "z"), EVERYTHING).await,
        ["empty", "large", "small"]
    );
    assert_eq!(get(disk, "empty").await, Some(Bytes::new()));
    assert_eq!(get(disk, "small").await, Some(bytes("s")));
    let large = get(disk, "large").await.expect("the large value");
    assert_eq!(large, "l".repeat(100_000).as_bytes());
}

#[tokio::test]
async fn what_was_committed_is_there_when_the_database_is_opened_again_and_again() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(&rocks(&directory)).await;
    // Opening flushes the write-ahead log, so the second opening reads from tables.
    for _ in 0..3 {
        is_filled(&rocks(&directory)).await;
    }
}

#[tokio::test]
async fn what_was_synced_is_in_the_image_of_a_memory_disk() {
    let disk = MemoryDisk::new();
    fill(&disk).await;
    is_filled(&disk.crash_image(0)).await;
}
