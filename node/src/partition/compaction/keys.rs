//! Last offset of each key in a stretch of the log, for as many keys as fit in memory.

use std::collections::BTreeMap;

use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use sha2::{Digest, Sha256};

/// Memory per key, whatever its length: the hash, the offset, and their share of the tree.
const KEY_BYTES: usize = 64;

/// Hash that represents a key. It must resist collisions that clients could construct: the older of two
/// records with the same hash would be lost.
type Hash = [u8; 16];

/// Last offset of each key.
#[derive(Debug)]
pub(super) struct LastOffsets {
    last: BTreeMap<Hash, u64>,
    most: usize,
}

impl LastOffsets {
    /// Creates a map for as many keys as fit in this much memory. It always accepts at least one batch.
    pub(super) fn new(memory_bytes: usize) -> LastOffsets {
        LastOffsets {
            last: BTreeMap::new(),
            most: memory_bytes / KEY_BYTES,
        }
    }

    /// Returns true if a batch of this many records fits.
    pub(super) fn has_room(&self, records: usize) -> bool {
        self.last.is_empty() || self.last.len().saturating_add(records) <= self.most
    }

    /// Records the offset of a key. Records must come in order.
    pub(super) fn put(&mut self, key: &[u8], offset: u64) {
        self.last.insert(hash(key), offset);
    }

    /// Returns true if a record after `offset` has the same key.
    pub(super) fn is_superseded(&self, key: &[u8], offset: u64) -> bool {
        let last = self.last.get(&hash(key));
        let after = offset + u64::from(!is_planted(PlantedBug::CompactTheLast));
        last.is_some_and(|last| *last >= after)
    }
}

fn hash(key: &[u8]) -> Hash {
    let digest = Sha256::digest(key);
    let mut hash = Hash::default();
    hash.iter_mut()
        .zip(digest)
        .for_each(|(to, from)| *to = from);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_superseded_by_a_later_one_of_its_key_only() {
        let mut keys = LastOffsets::new(1 << 10);
        keys.put(b"a", 3);
        keys.put(b"b", 4);
        keys.put(b"a", 5);
        assert!(keys.is_superseded(b"a", 3));
        assert!(!keys.is_superseded(b"a", 5));
        assert!(!keys.is_superseded(b"b", 4));
        assert!(!keys.is_superseded(b"c", 0));
    }

    #[test]
    fn keys_that_begin_alike_are_told_apart() {
        let long = "a key longer than what stands for it, ".repeat(3);
        let (one, other) = (format!("{long}1"), format!("{long}2"));
        let mut keys = LastOffsets::new(1 << 10);
        keys.put(one.as_bytes(), 5);
        assert!(keys.is_superseded(one.as_bytes(), 3));
        assert!(!keys.is_superseded(other.as_bytes(), 3));
    }

    #[test]
    fn only_so_many_keys_are_taken_but_always_one_batch() {
        let mut keys = LastOffsets::new(3 * KEY_BYTES);
        assert!(keys.has_room(1_000));
        keys.put(b"a", 0);
        keys.put(b"b", 1);
        assert!(keys.has_room(1));
        assert!(!keys.has_room(2));
    }
}
