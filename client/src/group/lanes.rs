//! Which record may be handled next: records of one key one after the other, in the order they
//! came; different keys side by side. Knows nothing of handlers, tasks or partitions.

use std::collections::{BTreeMap, VecDeque};

/// What waits and what is being handled. An item of a lane starts when the one before it in that
/// lane has finished, and a slot is free. Among lanes, the one that waits longest goes first.
///
/// Bounded by who fills it.
#[derive(Debug)]
pub(super) struct Lanes<K, T> {
    slots: usize,
    running: usize,
    /// A lane is here as long as something of it runs or waits.
    lanes: BTreeMap<K, Lane<T>>,
    /// Lanes of which something waits and nothing runs.
    ready: VecDeque<K>,
}

#[derive(Debug)]
struct Lane<T> {
    runs: bool,
    items: VecDeque<T>,
}

impl<K: Ord + Clone, T> Lanes<K, T> {
    /// At most `slots` at a time.
    pub fn new(slots: usize) -> Lanes<K, T> {
        Lanes {
            slots,
            running: 0,
            lanes: BTreeMap::new(),
            ready: VecDeque::new(),
        }
    }

    /// One more item of a lane.
    pub fn push(&mut self, key: K, item: T) {
        let lane = self.lanes.entry(key.clone()).or_insert_with(|| Lane {
            runs: false,
            items: VecDeque::new(),
        });
        if !lane.runs && lane.items.is_empty() {
            self.ready.push_back(key);
        }
        lane.items.push_back(item);
    }

    /// What may start now. Its lane waits until [`Lanes::finished`].
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

    /// The item of this lane that was started is finished.
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

    /// Drops what waits and is not worth starting any more.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for lane in self.lanes.values_mut() {
            lane.items.retain(&mut keep);
        }
        self.lanes
            .retain(|_, lane| lane.runs || !lane.items.is_empty());
        self.ready.retain(|key| self.lanes.contains_key(key));
    }

    /// How many were started and are not finished.
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
        let mut lanes = Lanes::new(2);
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
        let mut lanes = Lanes::new(1);
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
            let mut lanes = Lanes::new(slots);
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
