//! Scheduling of handlers: records with the same key run one after another in order, different keys run in
//! parallel. This module knows nothing of handlers, tasks or partitions.

use std::collections::{BTreeMap, VecDeque};

/// Waiting items and running lanes. An item starts when the item before it in its lane has finished and a
/// slot is free. The lane that has waited longest goes first.
///
/// The caller bounds the number of items.
#[derive(Debug)]
pub(super) struct KeyQueues<K, T> {
    slots: usize,
    running: usize,
    /// Lanes with a running or waiting item.
    lanes: BTreeMap<K, KeyQueue<T>>,
    /// Lanes with waiting items and no running one.
    ready: VecDeque<K>,
}

#[derive(Debug)]
struct KeyQueue<T> {
    runs: bool,
    items: VecDeque<T>,
}

impl<K: Ord + Clone, T> KeyQueues<K, T> {
    /// Creates a scheduler that runs at most `slots` items at a time.
    pub fn new(slots: usize) -> KeyQueues<K, T> {
        KeyQueues {
            slots,
            running: 0,
            lanes: BTreeMap::new(),
            ready: VecDeque::new(),
        }
    }

    /// Adds an item to a lane.
    pub fn push(&mut self, key: K, item: T) {
        let lane = self.lanes.entry(key.clone()).or_insert_with(|| KeyQueue {
            runs: false,
            items: VecDeque::new(),
        });
        if !lane.runs && lane.items.is_empty() {
            self.ready.push_back(key);
        }
        lane.items.push_back(item);
    }

    /// Takes the next item that may start. Its lane waits until [`KeyQueues::finished`].
    pub fn start(&mut self) -> Option<(K, T)> {
        if self.running == self.slots {
            return None;
        }
        let key = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&key)?;
        let item = lane.items.pop_front()?;
        lane.runs = true;
        self.running += 1;
        Some((key, item))
    }

    /// Records that the running item of this lane has finished.
    pub fn finished(&mut self, key: &K) {
        let Some(lane) = self.lanes.get_mut(key).filter(|lane| lane.runs) else {
            return;
        };
        lane.runs = false;
        self.running -= 1;
        if lane.items.is_empty() {
            self.lanes.remove(key);
        } else {
            self.ready.push_back(key.clone());
        }
    }

    /// Drops waiting items that are no longer worth starting.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for lane in self.lanes.values_mut() {
            lane.items.retain(&mut keep);
        }
        self.lanes
            .retain(|_, lane| lane.runs || !lane.items.is_empty());
        self.ready.retain(|key| self.lanes.contains_key(key));
    }

    /// Number of running items.
    pub fn running(&self) -> usize {
        self.running
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slow_key_holds_back_only_itself() {
        let mut lanes = KeyQueues::new(2);
        for (key, item) in [("a", 1), ("a", 2), ("b", 3), ("b", 4)] {
            lanes.push(key, item);
        }
        assert_eq!(lanes.start(), Some(("a", 1)));
        assert_eq!(lanes.start(), Some(("b", 3)));
        assert_eq!(lanes.start(), None, "both slots are taken");
        lanes.finished(&"b");
        assert_eq!(lanes.start(), Some(("b", 4)));
        lanes.finished(&"b");
        assert_eq!(lanes.start(), None, "the rest waits for its key");
        lanes.finished(&"a");
        assert_eq!(lanes.start(), Some(("a", 2)));
    }

    #[test]
    fn what_is_not_worth_it_any_more_is_dropped_and_the_rest_goes_on() {
        let mut lanes = KeyQueues::new(1);
        for (key, item) in [("a", 1), ("a", 2), ("b", 3), ("c", 4)] {
            lanes.push(key, item);
        }
        assert_eq!(lanes.start(), Some(("a", 1)));
        lanes.retain(|item| *item == 4);
        assert_eq!(lanes.running(), 1);
        lanes.finished(&"a");
        assert_eq!(lanes.start(), Some(("c", 4)));
        lanes.finished(&"c");
        assert_eq!((lanes.start(), lanes.running()), (None, 0));
        assert!(lanes.lanes.is_empty());
    }

    proptest! {
        #[test]
        fn every_item_starts_once_in_the_order_of_its_key_and_never_beside_another_of_it(
            keys in prop::collection::vec(0u8..5, 0..60),
            slots in 1usize..6,
            choices in prop::collection::vec(any::<prop::sample::Index>(), 200),
        ) {
            let mut lanes = KeyQueues::new(slots);
            let mut expected: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
            for (number, key) in keys.iter().enumerate() {
                lanes.push(*key, number);
                expected.entry(*key).or_default().push(number);
            }
            let mut started: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
            let mut running: Vec<u8> = Vec::new();
            let mut choices = choices.into_iter();
            loop {
                while let Some((key, number)) = lanes.start() {
                    prop_assert!(!running.contains(&key));
                    running.push(key);
                    started.entry(key).or_default().push(number);
                }
                prop_assert!(running.len() <= slots);
                prop_assert_eq!(lanes.running(), running.len());
                if running.is_empty() {
                    break;
                }
                let which = choices.next().unwrap().index(running.len());
                lanes.finished(&running.swap_remove(which));
            }
            prop_assert_eq!(started, expected);
            prop_assert!(lanes.lanes.is_empty());
        }
    }
}
