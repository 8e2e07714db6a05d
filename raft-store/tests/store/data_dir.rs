//! A damaged database is set aside whole, and only once, at whatever point a crash happens.

use std::fs;
use std::path::Path;

use ropewalk_raft_store::data_dir::{DataDir, DataDirError};

fn with_database(path: &Path) -> DataDir {
    let data_dir = DataDir::open(path).expect("a data directory");
    fs::create_dir(path.join("db")).expect("a database");
    fs::write(path.join("db/CURRENT"), "what is left").expect("a database");
    data_dir
}

#[test]
fn a_damaged_database_is_set_aside_whole_with_the_reason_and_nothing_in_its_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let data_dir = with_database(dir.path());
    assert_eq!(data_dir.damage().expect("readable"), None);
    data_dir.note_damage("block 7 rots").expect("noted");
    drop(data_dir);
    let data_dir = DataDir::open(dir.path()).expect("a data directory");
    let why = data_dir.damage().expect("readable");
    assert_eq!(why.as_deref(), Some("block 7 rots"));
    let kept = data_dir.set_aside().expect("set aside");
    let read = |name: &str| fs::read_to_string(kept.join(name)).expect("kept");
    assert_eq!(read("CURRENT"), "what is left");
    assert_eq!(read("DAMAGED"), "block 7 rots\n");
    assert!(!dir.path().join("db").exists());
    assert_eq!(data_dir.damage().expect("readable"), None);
}

/// State that a crash or a power loss leaves of `set_aside`, by the number of its last step.
fn cut_after(step: u32, path: &Path) {
    let (database, kept) = (path.join("db"), path.join("quarantine"));
    let (note, kept_note) = (path.join("DAMAGED"), kept.join("DAMAGED"));
    if step >= 2 {
        fs::rename(database, &kept).expect("the database is renamed");
    }
    if step == 4 {
        // The new name is durable, and the old one is not gone.
        fs::hard_link(&note, &kept_note).expect("both names");
    }
    if step == 5 {
        fs::copy(&note, &kept_note).expect("the reason twice");
    }
    if step >= 6 {
        fs::rename(&note, &kept_note).expect("the mark is renamed");
    }
}

#[test]
fn a_start_finishes_a_move_that_was_cut_after_any_of_its_steps() {
    for step in 1..=6 {
        let dir = tempfile::tempdir().expect("a folder");
        let data_dir = with_database(dir.path());
        data_dir.note_damage("why").expect("noted");
        drop(data_dir);
        cut_after(step, dir.path());
        let data_dir = DataDir::open(dir.path()).expect("a data directory");
        let marked = data_dir.damage().expect("readable").is_some();
        assert_eq!(marked, step < 6, "after step {step}");
        if marked {
            data_dir.set_aside().expect("the rest of the steps");
        }
        let kept = dir.path().join("quarantine");
        let why = fs::read_to_string(kept.join("DAMAGED")).expect("the reason");
        assert_eq!(why, "why\n", "after step {step}");
        assert!(kept.join("CURRENT").exists(), "after step {step}");
        assert!(!dir.path().join("db").exists(), "after step {step}");
        assert_eq!(data_dir.damage().expect("readable"), None);
    }
}

#[test]
fn a_database_that_nobody_marked_is_not_set_aside() {
    let dir = tempfile::tempdir().expect("a folder");
    let data_dir = with_database(dir.path());
    data_dir.set_aside().expect_err("no reason");
    assert!(dir.path().join("db/CURRENT").exists());
    assert!(!dir.path().join("quarantine").exists());
}

#[test]
fn the_reason_of_an_earlier_database_is_not_replaced() {
    let dir = tempfile::tempdir().expect("a folder");
    let data_dir = with_database(dir.path());
    data_dir.note_damage("first").expect("noted");
    let kept = data_dir.set_aside().expect("set aside");
    fs::write(dir.path().join("DAMAGED"), "second\n").expect("a mark");
    let refused = data_dir.set_aside().expect_err("the first is there");
    assert!(
        matches!(&refused, DataDirError::Unlooked { .. }),
        "{refused}"
    );
    let why = fs::read_to_string(kept.join("DAMAGED")).expect("the reason");
    assert_eq!(why, "first\n");
    // Nothing is left but the mark: the database was removed by hand.
    fs::remove_dir_all(&kept).expect("looked at");
    data_dir.set_aside().expect("set aside");
    let why = fs::read_to_string(kept.join("DAMAGED")).expect("the reason");
    assert_eq!(why, "second\n");
}

#[test]
fn a_second_one_is_refused_and_changes_nothing_while_the_first_is_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let data_dir = with_database(dir.path());
    data_dir.note_damage("first").expect("noted");
    let kept = data_dir.set_aside().expect("set aside");
    fs::create_dir(dir.path().join("db")).expect("a database");
    let refused = data_dir.note_damage("second");
    let refused = refused.expect_err("nobody has looked");
    assert!(
        matches!(&refused, DataDirError::Unlooked { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("quarantine"), "{refused}");
    let refused = data_dir.set_aside().expect_err("nobody has looked");
    assert!(
        matches!(&refused, DataDirError::Unlooked { .. }),
        "{refused}"
    );
    assert!(dir.path().join("db").exists());
    fs::remove_dir_all(kept).expect("looked at");
    data_dir.note_damage("second").expect("noted");
    data_dir.set_aside().expect("set aside");
}

#[test]
fn the_cluster_is_remembered_beside_the_database() {
    let dir = tempfile::tempdir().expect("a folder");
    let data_dir = DataDir::open(dir.path()).expect("a data directory");
    assert_eq!(data_dir.cluster().expect("readable"), None);
    data_dir.remember_cluster("c1").expect("kept");
    drop(data_dir);
    let data_dir = DataDir::open(dir.path()).expect("a data directory");
    let cluster = data_dir.cluster().expect("readable");
    assert_eq!(cluster.as_deref(), Some("c1"));
}
