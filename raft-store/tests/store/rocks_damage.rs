//! A write-ahead log that differs from the synced one is refused; one whose end was never synced opens.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ropewalk_raft_store::disk::rocks::{RocksDisk, RocksOptions};
use ropewalk_raft_store::disk::{ChangeBatch, Disk, DiskError};

use crate::support::numbered::{copy, count, put};

const WATERMARK: &str = "WATERMARK";

fn try_open(path: &Path) -> Result<RocksDisk, DiskError> {
    let options = RocksOptions {
        database_bytes: 1 << 20,
        ..RocksOptions::default()
    };
    RocksDisk::open(path, options)
}

/// The newest write-ahead log.
fn wal(path: &Path) -> PathBuf {
    let files = fs::read_dir(path).expect("a directory");
    let files = files.map(|file| file.expect("a file").path());
    let logs = files.filter(|file| file.extension().is_some_and(|end| end == "log"));
    logs.max().expect("a write-ahead log")
}

fn wal_bytes(path: &Path) -> u64 {
    fs::metadata(wal(path)).expect("a file").len()
}

/// The only table.
fn table(path: &Path) -> PathBuf {
    let files = fs::read_dir(path).expect("a directory");
    let files = files.map(|file| file.expect("a file").path());
    let mut tables = files.filter(|file| file.extension().is_some_and(|end| end == "sst"));
    let table = tables.next().expect("a table");
    assert_eq!(tables.next(), None);
    table
}

fn cut(path: &Path, length: u64) {
    let file = fs::OpenOptions::new().write(true).open(wal(path));
    file.expect("a file").set_len(length).expect("a cut");
}

fn flip(file: &Path, at: usize) {
    flip_bit(file, at, 4);
}

fn flip_bit(file: &Path, at: usize, bit: u32) {
    let mut bytes = fs::read(file).expect("a file");
    bytes[at] ^= 1 << bit;
    fs::write(file, bytes).expect("a file");
}

/// A database as a crash leaves it, copied while it is open, after `synced` synced commits and `unsynced`
/// more. Also returns the length of the log after each commit.
async fn crashed(synced: u32, unsynced: u32) -> (tempfile::TempDir, Vec<u64>) {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = try_open(directory.path()).expect("an empty directory opens");
    let mut lengths = vec![wal_bytes(directory.path())];
    for number in 0..synced + unsynced {
        put(&disk, number, number < synced).await;
        lengths.push(wal_bytes(directory.path()));
    }
    (copy(directory.path()), lengths)
}

fn refused(path: &Path, what: &str) -> String {
    match try_open(path) {
        Err(DiskError::Damaged(reason)) => reason,
        other => panic!("{what}: expected damage, got {other:?}"),
    }
}

#[tokio::test]
async fn a_torn_end_that_was_never_synced_is_dropped_and_nothing_else() {
    let (image, lengths) = crashed(12, 6).await;
    let (synced, end) = (lengths[12], lengths[18]);
    let cuts = (synced..=end).step_by(41).chain([synced, end]);
    for length in cuts {
        let copy = copy(image.path());
        cut(copy.path(), length);
        let disk = try_open(copy.path()).expect("a torn tail opens");
        let whole = lengths.iter().filter(|&&end| end <= length).count() - 1;
        assert_eq!(count(&disk).await, whole as u32, "cut at {length}");
    }
}

#[tokio::test]
async fn a_log_cut_below_what_was_synced_is_refused_again_and_again() {
    let (image, lengths) = crashed(12, 0).await;
    let end = lengths[12];
    // Cut within records, and at the end of each. The latter looks like a log that was never longer.
    let within = (0..end).step_by(113);
    for length in within.chain(lengths[..12].iter().copied()) {
        let copy = copy(image.path());
        cut(copy.path(), length);
        let reason = refused(copy.path(), &format!("cut at {length} of {end}"));
        assert!(!reason.is_empty());
        refused(copy.path(), "a second attempt");
    }
    let copy = copy(image.path());
    cut(copy.path(), lengths[11]);
    let reason = refused(copy.path(), "cut where a record ends");
    assert!(reason.contains("was cut"), "{reason}");
}

#[tokio::test]
async fn a_log_that_is_gone_is_refused() {
    let (image, _) = crashed(3, 0).await;
    fs::remove_file(wal(image.path())).expect("removed");
    refused(image.path(), "without its log");
}

#[tokio::test]
async fn a_database_that_lost_its_first_file_is_refused_and_not_begun_anew() {
    let (image, _) = crashed(3, 0).await;
    fs::remove_file(image.path().join("CURRENT")).expect("removed");
    for _ in 0..2 {
        let reason = refused(image.path(), "without CURRENT");
        assert!(reason.contains("is missing"), "{reason}");
    }
}

#[tokio::test]
async fn a_creation_that_was_cut_short_is_taken_up_again() {
    for length in [0, 7, 1_024] {
        let directory = tempfile::tempdir().expect("a directory");
        let zeros = vec![0; length];
        fs::write(directory.path().join(WATERMARK), zeros).expect("a file");
        let disk = try_open(directory.path()).expect("nothing was there yet");
        put(&disk, 0, true).await;
        drop(disk);
        let disk = try_open(directory.path()).expect("it opens again");
        assert_eq!(count(&disk).await, 1);
    }
}

#[tokio::test]
async fn a_flipped_byte_anywhere_in_a_synced_log_is_refused() {
    let (image, lengths) = crashed(12, 0).await;
    for at in (0..lengths[12] as usize).step_by(67) {
        let copy = copy(image.path());
        flip(&wal(copy.path()), at);
        refused(copy.path(), &format!("flipped at {at}"));
    }
    // The header of each record: checksum, length and type.
    for start in &lengths[..12] {
        for at in [0, 4, 5, 6] {
            let copy = copy(image.path());
            flip(&wal(copy.path()), *start as usize + at);
            refused(copy.path(), &format!("flipped at {start} + {at}"));
        }
    }
}

/// With a mark as a power loss leaves it, since it is not synced with every commit. RocksDB looks at a
/// record's length and type before its checksum, and for some of them ends the log there silently.
#[tokio::test]
async fn a_flipped_bit_in_the_head_of_a_record_is_refused_also_where_the_mark_is_old() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(try_open(directory.path()).expect("an empty directory opens"));
    let old = fs::read(directory.path().join(WATERMARK)).expect("a file");
    let (image, lengths) = crashed(8, 0).await;
    fs::write(image.path().join(WATERMARK), old).expect("a file");
    let whole = copy(image.path());
    assert_eq!(
        count(&try_open(whole.path()).expect("it is whole")).await,
        8
    );
    for start in &lengths[..8] {
        for (at, bit) in (0..7).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let copy = copy(image.path());
            flip_bit(&wal(copy.path()), *start as usize + at, bit);
            refused(copy.path(), &format!("bit {bit} flipped at {start} + {at}"));
        }
    }
}

#[tokio::test]
async fn a_torn_watermark_opens_and_a_lost_one_is_refused() {
    let (image, _) = crashed(5, 0).await;
    for slot in [0, 512] {
        let copy = copy(image.path());
        flip(&copy.path().join(WATERMARK), slot + 10);
        let disk = try_open(copy.path()).expect("the other slot is whole");
        assert_eq!(count(&disk).await, 5);
    }
    let both = copy(image.path());
    flip(&both.path().join(WATERMARK), 10);
    flip(&both.path().join(WATERMARK), 522);
    let reason = refused(both.path(), "no slot is whole");
    assert!(reason.contains("damaged"), "{reason}");
    let without = copy(image.path());
    fs::remove_file(without.path().join(WATERMARK)).expect("removed");
    let reason = refused(without.path(), "without its watermark");
    assert!(reason.contains("is missing"), "{reason}");
}

#[tokio::test]
async fn a_database_opened_many_times_is_never_below_its_watermark() {
    let directory = tempfile::tempdir().expect("a directory");
    for number in 0..6 {
        let disk = try_open(directory.path()).expect("it opens");
        assert_eq!(count(&disk).await, number);
        put(&disk, number, number % 2 == 0).await;
        // A sync of nothing new, like that of a close.
        let nothing = disk.commit(ChangeBatch::default(), true).await;
        nothing.expect("a commit");
    }
}

/// A new replica's keys sort after all others. It has none yet, and must not be taken for damaged.
#[tokio::test]
async fn what_is_damaged_is_not_met_by_who_looks_for_the_end_of_another_range() {
    let (image, _) = crashed(12, 0).await;
    drop(try_open(image.path()).expect("it opens, and writes a table"));
    let table = table(image.path());
    let bytes = fs::read(&table).expect("a file");
    let eleventh = bytes.windows(20).position(|window| window == [11; 20]);
    flip(&table, eleventh.expect("an uncompressed table"));
    let disk = try_open(image.path()).expect("nothing reads the table yet");
    let key = |number: u32| Bytes::copy_from_slice(&number.to_be_bytes());
    let damaged = disk.last(key(0)..key(12)).await;
    assert!(matches!(damaged, Err(DiskError::Damaged(_))), "{damaged:?}");
    let none = disk.last(key(12)..key(20)).await.expect("nothing damaged");
    assert_eq!(none, None);
    put(&disk, 12, true).await;
    put(&disk, 13, true).await;
    let last = disk.last(key(12)..key(20)).await.expect("nothing damaged");
    assert_eq!(last, Some((key(13), crate::support::numbered::value(13))));
}
