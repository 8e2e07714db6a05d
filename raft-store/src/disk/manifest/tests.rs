use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::records::{BLOCK_BYTES, HEADER_BYTES, masked};
use super::*;

/// Appends one edit, in as many records as the blocks require.
fn write(to: &mut Vec<u8>, mut edit: &[u8]) {
    let mut is_first = true;
    loop {
        let left = BLOCK_BYTES - to.len() % BLOCK_BYTES;
        if left < HEADER_BYTES {
            to.resize(to.len() + left, 0);
            continue;
        }
        let (now, rest) = edit.split_at(edit.len().min(left - HEADER_BYTES));
        let kind = match (is_first, rest.is_empty()) {
            (true, true) => 1,
            (true, false) => 2,
            (false, false) => 3,
            (false, true) => 4,
        };
        record(to, kind, now);
        (edit, is_first) = (rest, false);
        if edit.is_empty() {
            return;
        }
    }
}

fn record(to: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let covered = [&[kind], content].concat();
    to.extend(masked(crc32c::crc32c(&covered)).to_le_bytes());
    to.extend((content.len() as u16).to_le_bytes());
    to.extend(covered);
}

/// A manifest with edits of these lengths, and the offsets at which they end.
fn edits(bytes: &[usize]) -> (Vec<u8>, Vec<u64>) {
    let (mut manifest, mut ends) = (Vec::new(), Vec::new());
    for bytes in bytes {
        write(&mut manifest, &vec![7; *bytes]);
        ends.push(manifest.len() as u64);
    }
    (manifest, ends)
}

#[test]
fn edits_of_all_lengths_are_whole_wherever_blocks_end() {
    for around in 0..30 {
        let first = BLOCK_BYTES - HEADER_BYTES - around;
        let (manifest, ends) = edits(&[first, 0, 20, 100_000, 3]);
        assert_eq!(walk(&manifest, 0), Ok(ends[4]));
        // As the mark follows the manifest, from the end of any edit.
        for end in ends.iter().copied() {
            assert_eq!(walk(&manifest[end as usize..], end), Ok(ends[4]));
        }
    }
}

#[test]
fn an_edit_that_is_cut_short_is_left_out_and_one_without_its_beginning_is_damage() {
    let (manifest, ends) = edits(&[50, 100_000, 3]);
    for length in (ends[0]..ends[1]).step_by(997) {
        assert_eq!(walk(&manifest[..length as usize], 0), Ok(ends[0]));
    }
    // Cut at the end of its first record.
    let torn = &manifest[BLOCK_BYTES..];
    assert!(walk(torn, BLOCK_BYTES as u64).is_err());
    let mut joined = manifest[..BLOCK_BYTES].to_vec();
    record(&mut joined, 1, &[7; 10]);
    let bad = walk(&joined, 0).expect_err("an edit began and does not end");
    assert_eq!(bad.at, BLOCK_BYTES as u64);
}

#[test]
fn zeros_with_something_behind_them_are_damage() {
    let (mut manifest, ends) = edits(&[50]);
    manifest.resize(BLOCK_BYTES, 0);
    assert_eq!(walk(&manifest, 0), Ok(ends[0]));
    record(&mut manifest, 1, &[7; 10]);
    let bad = walk(&manifest, 0).expect_err("RocksDB would go on behind them");
    assert_eq!(bad.at, ends[0]);
    let (mut manifest, _) = edits(&[BLOCK_BYTES - HEADER_BYTES - 5, 10]);
    manifest[BLOCK_BYTES - 2] = 1;
    assert!(walk(&manifest, 0).is_err());
}

#[test]
fn records_of_types_that_logs_have_are_damage_also_where_they_are_cut_short() {
    for kind in [0, 5, 6, 7, 8, 9, 10, 11, 130, 131, 255] {
        let (mut manifest, ends) = edits(&[50]);
        record(&mut manifest, kind, &[0; 30]);
        for cut in [0, 1, 30] {
            let length = manifest.len() - cut;
            let bad = walk(&manifest[..length], 0).expect_err("RocksDB may read it for ever");
            assert_eq!(bad.at, ends[0]);
        }
    }
}

/// Files in memory, and a list of the syncs with the length of the file at each.
#[derive(Clone, Default)]
struct Files {
    content: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    synced: Arc<Mutex<Vec<(String, usize)>>>,
}

impl Files {
    fn put(&self, name: &str, content: &[u8]) {
        self.content.lock().insert(name.into(), content.into());
    }
}

impl DatabaseFiles for Files {
    fn read(&self, name: &str, from: u64) -> io::Result<Vec<u8>> {
        let files = self.content.lock();
        let content = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(content[from as usize..].to_vec())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.content.lock().keys().cloned().collect())
    }

    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.content.lock().get(name).map(|one| one.len() as u64))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let bytes = self.content.lock()[name].len();
        self.synced.lock().push((name.into(), bytes));
        Ok(())
    }
}

#[test]
fn the_end_that_is_noted_is_synced_and_that_of_an_edit_and_moves_to_a_new_manifest() {
    let (first, ends) = edits(&[50, 60]);
    let files = Files::default();
    files.put("CURRENT", b"MANIFEST-000005\n");
    files.put("MANIFEST-000005", &first[..ends[0] as usize]);
    let mut manifest = Manifest::new(Box::new(files.clone()), Path::new("/db"));
    assert!(manifest.reopen().expect("it is there"));
    let end = |number, bytes| ManifestEnd { number, bytes };
    assert_eq!(manifest.end(), end(5, ends[0]));
    assert!(!manifest.has_grown().expect("it is there"));
    assert_eq!(files.synced.lock().len(), 1);
    // A background thread has not finished the second edit.
    files.put("MANIFEST-000005", &first[..ends[1] as usize - 1]);
    assert!(!manifest.has_grown().expect("it is there"));
    files.put("MANIFEST-000005", &first);
    assert!(manifest.has_grown().expect("it is there"));
    assert_eq!(manifest.end(), end(5, ends[1]));
    let synced = files.synced.lock().last().cloned();
    assert_eq!(synced, Some(("MANIFEST-000005".into(), first.len())));
    // The database replaces the manifest with a shorter one.
    files.put("MANIFEST-000009", &first[..ends[0] as usize]);
    files.put("CURRENT", b"MANIFEST-000009\n");
    files.content.lock().remove("MANIFEST-000005");
    assert!(manifest.has_grown().expect("it is there"));
    assert_eq!(manifest.end(), end(9, ends[0]));
    let synced = files.synced.lock().last().cloned();
    assert_eq!(synced, Some(("MANIFEST-000009".into(), ends[0] as usize)));
}
