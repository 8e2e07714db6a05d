//! A manifest that differs from the synced one is refused, and quickly. One whose end was never synced
//! opens with everything.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use ropewalk_raft_store::disk::rocks::{
    Directory, Env, Inline, ReclaimOptions, RocksDisk, RocksOptions,
};
use ropewalk_raft_store::disk::{Change, ChangeBatch, Disk, DiskError};

use crate::support::numbered::{copy, count, put};

const WATERMARK: &str = "WATERMARK";
const CURRENT: &str = "CURRENT";
/// A slot of the watermark, and the part of it that builds without the manifest fields wrote.
const SLOT_BYTES: usize = 512;
const OLD_MARK_BYTES: usize = 20;

/// Far longer than any opening takes.
const DEADLINE: Duration = Duration::from_secs(30);

const FLUSH_AFTER_BYTES: usize = 2_000;
/// Enough for a few flushes.
const VALUES: u32 = 30;

const OPTIONS: RocksOptions = RocksOptions {
    database_bytes: 1 << 20,
    reclaim: ReclaimOptions {
        every: Duration::ZERO,
        garbage_bytes: 256 << 20,
    },
};

/// Without threads of its own, so that the same commits leave the same files.
fn inline(path: &Path, flush_after_bytes: usize) -> RocksDisk {
    let is_new = !path.join(CURRENT).exists();
    let mark = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(WATERMARK));
    let inline = Inline {
        env: Env::new().expect("the system's files"),
        files: Box::new(Directory(path.to_path_buf())),
        mark: Box::new(mark.expect("a file")),
        is_new,
        flush_after_bytes,
    };
    RocksDisk::open_inline(path, OPTIONS, inline).expect("it opens")
}

/// Opens it as a node does, with a deadline.
#[allow(
    clippy::disallowed_methods,
    reason = "an opening that never ends must fail the test and not hold it up"
)]
fn open(path: &Path, what: &str) -> Result<RocksDisk, DiskError> {
    let (opened, outcome) = mpsc::channel();
    let path = path.to_path_buf();
    std::thread::spawn(move || {
        // A late opening has no receiver.
        let _ = opened.send(RocksDisk::open(&path, OPTIONS));
    });
    let outcome = outcome.recv_timeout(DEADLINE);
    outcome.unwrap_or_else(|_| panic!("{what}: it is not open after {DEADLINE:?}"))
}

fn refused(path: &Path, what: &str) -> String {
    match open(path, what) {
        Err(DiskError::Damaged(reason)) => reason,
        other => panic!("{what}: expected damage, got {other:?}"),
    }
}

fn refused_as_cut(path: &Path, what: &str) {
    let reason = refused(path, what);
    let told = reason.contains("MANIFEST") && reason.contains("was cut");
    assert!(told, "{what}: {reason}");
}

fn manifest(path: &Path) -> PathBuf {
    let name = fs::read_to_string(path.join(CURRENT)).expect("a file");
    path.join(name.trim_end())
}

/// A database as a crash leaves it, copied while it is open, and its manifest.
async fn crashed(values: u32, flush_after_bytes: usize) -> (tempfile::TempDir, Vec<u8>) {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = inline(directory.path(), flush_after_bytes);
    for number in 0..values {
        put(&disk, number, true).await;
    }
    let image = copy(directory.path());
    let manifest = fs::read(manifest(image.path())).expect("a file");
    (image, manifest)
}

/// Removes the manifest fields from the mark.
fn make_mark_old(path: &Path) {
    let mut mark = fs::read(path.join(WATERMARK)).expect("a file");
    for slot in mark.chunks_mut(SLOT_BYTES) {
        slot[OLD_MARK_BYTES..].fill(0);
    }
    fs::write(path.join(WATERMARK), mark).expect("a file");
}

async fn all_is_there(path: &Path, what: &str) {
    let disk = open(path, what).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(count(&disk).await, VALUES, "{what}");
}

#[tokio::test]
async fn a_manifest_with_any_bit_of_it_flipped_is_refused_and_nothing_is_changed() {
    let (image, whole) = crashed(VALUES, FLUSH_AFTER_BYTES).await;
    let file = manifest(image.path());
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut hurt = whole.clone();
            hurt[at] ^= 1 << bit;
            fs::write(&file, hurt).expect("a file");
            let what = format!("bit {bit} of byte {at}");
            let reason = refused(image.path(), &what);
            // The check refuses it before RocksDB reads it.
            let is_ours = reason.contains("is damaged at byte") || reason.contains("was cut");
            assert!(is_ours, "{what}: {reason}");
        }
    }
    fs::write(&file, whole).expect("a file");
    all_is_there(image.path(), "as it was").await;
}

#[tokio::test]
async fn a_manifest_cut_anywhere_is_refused_and_nothing_is_changed() {
    let (image, whole) = crashed(VALUES, FLUSH_AFTER_BYTES).await;
    let file = manifest(image.path());
    for length in 0..whole.len() {
        fs::write(&file, &whole[..length]).expect("a file");
        refused_as_cut(image.path(), &format!("cut to {length}"));
        // As a file system may restore it.
        let mut zeros = whole[..length].to_vec();
        zeros.resize(whole.len(), 0);
        if zeros != whole {
            fs::write(&file, zeros).expect("a file");
            refused(image.path(), &format!("zeros from {length} on"));
        }
    }
    fs::write(&file, whole).expect("a file");
    all_is_there(image.path(), "as it was").await;
}

#[tokio::test]
async fn a_manifest_is_in_the_mark_when_it_is_opened_and_when_a_commit_made_it_grow() {
    for values in [0, 1] {
        let (image, whole) = crashed(values, 1).await;
        let file = manifest(image.path());
        for length in 0..whole.len() {
            fs::write(&file, &whole[..length]).expect("a file");
            refused_as_cut(image.path(), &format!("cut to {length}"));
        }
    }
}

#[tokio::test]
async fn an_edit_that_was_cut_short_before_it_was_synced_is_dropped_and_nothing_else() {
    let (image, whole) = crashed(VALUES, FLUSH_AFTER_BYTES).await;
    let edit_bytes = 7 + usize::from(u16::from_le_bytes([whole[4], whole[5]]));
    let begun = (1..edit_bytes).map(|length| whole[..length].to_vec());
    let zeros = [1, 6, 7, 8, 4_096, 70_000].map(|length| vec![0; length]);
    for tail in begun.chain(zeros) {
        let copy = copy(image.path());
        let torn = [whole.as_slice(), &tail].concat();
        fs::write(manifest(copy.path()), torn).expect("a file");
        all_is_there(copy.path(), &format!("{} bytes more", tail.len())).await;
    }
}

#[tokio::test]
async fn a_database_whose_manifest_is_missing_or_an_older_one_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(inline(directory.path(), FLUSH_AFTER_BYTES));
    let older = manifest(directory.path());
    let content = fs::read(&older).expect("a file");
    let names = fs::read(directory.path().join(CURRENT)).expect("a file");
    drop(inline(directory.path(), FLUSH_AFTER_BYTES));
    let newer = manifest(directory.path());
    assert_ne!(newer, older);
    let back = copy(directory.path());
    fs::write(back.path().join(CURRENT), names).expect("a file");
    let reason = refused(back.path(), "without the manifest that is named");
    assert!(reason.contains("names MANIFEST"), "{reason}");
    fs::write(manifest(back.path()), content).expect("a file");
    let reason = refused(back.path(), "with the older manifest");
    assert!(reason.contains("names MANIFEST"), "{reason}");

    fs::write(directory.path().join(CURRENT), "MANIFEST-0000x5\n").expect("a file");
    let reason = refused(directory.path(), "with a name that is none");
    assert!(reason.contains("does not name"), "{reason}");
    let name = newer.file_name().and_then(|name| name.to_str());
    let names = format!("{}\n", name.expect("a name"));
    fs::write(directory.path().join(CURRENT), names).expect("a file");
    fs::remove_file(newer).expect("removed");
    let reason = refused(directory.path(), "without its manifest");
    assert!(reason.contains("is missing"), "{reason}");
}

#[tokio::test]
async fn a_mark_of_a_build_that_knew_no_manifest_opens_and_knows_it_from_then_on() {
    let (image, _) = crashed(VALUES, FLUSH_AFTER_BYTES).await;
    make_mark_old(image.path());
    all_is_there(image.path(), "with an old mark").await;
    let file = manifest(image.path());
    let whole = fs::read(&file).expect("a file");
    fs::write(&file, &whole[..whole.len() - 1]).expect("a file");
    refused_as_cut(image.path(), "cut by a byte");
}

#[tokio::test]
async fn a_flipped_bit_does_not_hold_up_a_database_whose_mark_is_old() {
    let (image, whole) = crashed(0, FLUSH_AFTER_BYTES).await;
    make_mark_old(image.path());
    for at in 0..whole.len() * 8 {
        let mut hurt = whole.clone();
        hurt[at / 8] ^= 1 << (at % 8);
        fs::write(manifest(image.path()), hurt).expect("a file");
        refused(image.path(), &format!("bit {} of byte {}", at % 8, at / 8));
    }
}

#[tokio::test]
async fn a_manifest_of_more_than_a_block_is_whole_and_checked_where_blocks_meet() {
    const BLOCK_BYTES: usize = 32 << 10;
    let values = 330;
    let (image, whole) = crashed(values, 1).await;
    assert!(whole.len() > BLOCK_BYTES + 100, "{} bytes", whole.len());
    for at in BLOCK_BYTES - 100..BLOCK_BYTES + 100 {
        let mut hurt = whole.clone();
        hurt[at] ^= 4;
        fs::write(manifest(image.path()), hurt).expect("a file");
        refused(image.path(), &format!("byte {at}"));
    }
    fs::write(manifest(image.path()), whole).expect("a file");
    let disk = open(image.path(), "as it was").expect("it opens");
    assert_eq!(count(&disk).await, values);
}

#[tokio::test]
async fn what_the_database_did_in_the_background_is_in_the_mark_after_the_next_commit() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = RocksDisk::open(directory.path(), OPTIONS).expect("it opens");
    put(&disk, 0, true).await;
    let mark = || fs::read(directory.path().join(WATERMARK)).expect("a file");
    let before = mark();
    let known = fs::read(manifest(directory.path())).expect("a file");
    // Compacting the deleted range flushes it.
    let change = Change::DeleteRange {
        range: Bytes::from_static(&[1])..Bytes::from_static(&[2]),
    };
    let deletion = ChangeBatch {
        changes: vec![change],
    };
    disk.commit(deletion, false).await.expect("a commit");
    let noted = async {
        while mark() == before {
            put(&disk, 0, false).await;
        }
    };
    let noted = tokio::time::timeout(DEADLINE, noted).await;
    noted.expect("the flush is in the mark");
    let noted = mark();
    // RocksDB deletes the files that the flush made obsolete in the background, until it is closed.
    drop(disk);
    let image = copy(directory.path());
    fs::write(image.path().join(WATERMARK), noted).expect("a file");
    fs::write(manifest(image.path()), known).expect("a file");
    refused_as_cut(image.path(), "as it was before the flush");
}
