//! Databases whose values are numbered, and copies of their files.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use ropewalk_raft_store::disk::rocks::RocksDisk;
use ropewalk_raft_store::disk::{Change, ChangeBatch, Disk, ScanLimit};

pub fn value(number: u32) -> Bytes {
    Bytes::from(vec![number as u8; 60 + number as usize * 31 % 400])
}

pub async fn put(disk: &RocksDisk, number: u32, sync: bool) {
    let change = Change::Put {
        key: Bytes::copy_from_slice(&number.to_be_bytes()),
        head: Bytes::new(),
        body: value(number),
    };
    let batch = ChangeBatch {
        changes: vec![change],
    };
    disk.commit(batch, sync).await.expect("a commit");
}

/// The number of values. They must be the first ones, and as they were written.
pub async fn count(disk: &RocksDisk) -> u32 {
    let everything = Bytes::new()..Bytes::from_static(&[255]);
    let limit = ScanLimit {
        max_bytes: usize::MAX,
        max_pairs: usize::MAX,
    };
    let pairs = disk.scan(everything, limit).await.expect("a scan");
    for ((key, found), number) in pairs.iter().zip(0_u32..) {
        assert_eq!(key.as_ref(), number.to_be_bytes());
        assert_eq!(*found, value(number));
    }
    pairs.len() as u32
}

pub fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a directory");
    for file in fs::read_dir(from).expect("a directory") {
        let file = file.expect("a file");
        fs::copy(file.path(), to.path().join(file.file_name())).expect("a copy");
    }
    to
}
