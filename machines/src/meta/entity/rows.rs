//! Values of an entity by key, with the keys that the current entry has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// Values by key. It reads like a map; a write marks its key as changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows<K, V> {
    values: BTreeMap<K, V>,
    changed: BTreeSet<K>,
}

impl<K: Ord + Clone, V> Rows<K, V> {
    /// Stores a value.
    pub fn put(&mut self, key: K, value: V) {
        self.changed.insert(key.clone());
        self.values.insert(key, value);
    }

    /// Removes a value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let removed = self.values.remove(key)?;
        self.changed.insert(key.clone());
        Some(removed)
    }

    /// A value that may change. The caller marks the change by [`Rows::touch`].
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.values.get_mut(key)
    }

    /// Marks a key as changed.
    pub fn touch(&mut self, key: K) {
        self.changed.insert(key);
    }

    /// Marks every key as changed.
    pub fn touch_all(&mut self) {
        self.changed = self.values.keys().cloned().collect();
    }

    /// True if a key is marked as changed.
    pub fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The changed keys with their values; `None` for a value that is gone.
    pub fn changes(&self) -> impl Iterator<Item = (&K, Option<&V>)> {
        self.changed.iter().map(|key| (key, self.values.get(key)))
    }

    /// Forgets the marks.
    pub fn settle(&mut self) {
        self.changed.clear();
    }
}

impl<K, V> Deref for Rows<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.values
    }
}

impl<K, V> Default for Rows<K, V> {
    fn default() -> Rows<K, V> {
        Rows {
            values: BTreeMap::new(),
            changed: BTreeSet::new(),
        }
    }
}

/// Values that were loaded: none counts as changed.
impl<K: Ord, V> FromIterator<(K, V)> for Rows<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(values: I) -> Rows<K, V> {
        Rows {
            values: values.into_iter().collect(),
            changed: BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_marks_its_key_until_the_change_is_settled() {
        let mut rows: Rows<u64, &str> = [(1, "a"), (2, "b"), (3, "c")].into_iter().collect();
        assert!(!rows.is_changed());
        rows.put(4, "d");
        assert_eq!(rows.remove(&2), Some("b"));
        assert_eq!(rows.remove(&9), None);
        let changes: Vec<_> = rows.changes().collect();
        assert_eq!(changes, [(&2, None), (&4, Some(&"d"))]);
        rows.settle();
        assert!(!rows.is_changed());
        rows.touch_all();
        let changed: Vec<u64> = rows.changes().map(|(key, _)| *key).collect();
        assert_eq!(changed, [1, 3, 4]);
    }
}
