//! Parts of one kind of a group, such as its members. They are read as a map. Every change goes through the
//! functions here, which keep the stored part of each changed key. So an entry writes the keys whose parts
//! differ, and no others.

use std::collections::BTreeMap;
use std::ops::Deref;

/// Upper bound of the bytes that a part takes in a checkpoint, without the group's name.
pub trait Weigh<K> {
    /// Bytes of the part under its key.
    fn bytes(&self, key: &K) -> u64;
}

/// Parts of one kind, by key.
#[derive(Debug, Clone)]
pub struct Parts<K, V> {
    map: BTreeMap<K, V>,
    /// Parts as of the last [`Parts::written`], of the keys that were touched since.
    stored: BTreeMap<K, Option<V>>,
    /// Bytes of all parts.
    bytes: u64,
}

/// Selection of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// All that exist.
    All,
    /// Those that differ from the stored ones, with the removed ones.
    Changed,
}

impl<K, V> Parts<K, V> {
    /// Bytes of all parts.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Marks all parts as stored.
    pub(super) fn written(&mut self) {
        self.stored.clear();
    }
}

impl<K: Ord, V: PartialEq> Parts<K, V> {
    /// Keys whose parts differ from the stored ones.
    fn changed(&self) -> impl Iterator<Item = &K> {
        let touched = self.stored.iter();
        let differs = |(key, stored): &(&K, &Option<V>)| self.map.get(key) != stored.as_ref();
        touched.filter(differs).map(|(key, _)| key)
    }

    /// Returns true if a part differs from the stored one.
    pub(super) fn is_changed(&self) -> bool {
        self.changed().next().is_some()
    }

    /// Selected parts in the order of their keys; `None` for a removed one.
    pub(super) fn of(&self, which: Which) -> impl Iterator<Item = (&K, Option<&V>)> {
        let all = (which == Which::All).then(|| self.map.keys());
        let changed = (which == Which::Changed).then(|| self.changed());
        let all = all.into_iter().flatten();
        let keys = all.chain(changed.into_iter().flatten());
        keys.map(|key| (key, self.map.get(key)))
    }
}

impl<K: Ord + Clone, V: Weigh<K> + Clone + PartialEq> Parts<K, V> {
    /// Adds or replaces a part.
    pub(super) fn set(&mut self, key: K, part: V) {
        self.bytes += part.bytes(&key);
        let before = self.map.insert(key.clone(), part);
        self.bytes -= before.as_ref().map_or(0, |before| before.bytes(&key));
        self.stored.entry(key).or_insert(before);
    }

    /// Changes a part, if it exists.
    pub(super) fn change(&mut self, key: &K, change: impl FnOnce(&mut V)) {
        if let Some(mut part) = self.map.get(key).cloned() {
            change(&mut part);
            self.set(key.clone(), part);
        }
    }

    /// Removes a part; returns true if it existed.
    pub(super) fn remove(&mut self, key: &K) -> bool {
        let Some(before) = self.map.remove(key) else {
            return false;
        };
        self.bytes -= before.bytes(key);
        self.stored.entry(key.clone()).or_insert(Some(before));
        true
    }

    /// Removes every part that is not to be kept.
    pub(super) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        let gone: Vec<K> = self.map.keys().filter(|key| !keep(key)).cloned().collect();
        for key in gone {
            self.remove(&key);
        }
    }
}

impl<K, V> Default for Parts<K, V> {
    fn default() -> Parts<K, V> {
        Parts {
            map: BTreeMap::new(),
            stored: BTreeMap::new(),
            bytes: 0,
        }
    }
}

/// Parts are equal whether or not they are written.
impl<K: PartialEq, V: PartialEq> PartialEq for Parts<K, V> {
    fn eq(&self, other: &Parts<K, V>) -> bool {
        self.map == other.map && self.bytes == other.bytes
    }
}

impl<K, V> Deref for Parts<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.map
    }
}

impl<'a, K, V> IntoIterator for &'a Parts<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::collections::btree_map::Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.map.iter()
    }
}

impl<K: Ord + Clone, V: Weigh<K> + Clone + PartialEq> FromIterator<(K, V)> for Parts<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(parts: I) -> Parts<K, V> {
        let mut all = Parts::default();
        for (key, part) in parts {
            all.set(key, part);
        }
        all
    }
}

impl<K: Ord + Clone, V: Weigh<K> + Clone + PartialEq, const N: usize> From<[(K, V); N]>
    for Parts<K, V>
{
    fn from(parts: [(K, V); N]) -> Parts<K, V> {
        parts.into_iter().collect()
    }
}
