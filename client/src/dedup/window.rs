//! The last ids, with a lookup. Memory only.

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Window {
    most: usize,
    /// Ids in the order of insertion.
    order: VecDeque<Arc<[u8]>>,
    ids: BTreeSet<Arc<[u8]>>,
}

impl Window {
    pub fn new(most: NonZeroUsize) -> Window {
        Window {
            most: most.get(),
            order: VecDeque::new(),
            ids: BTreeSet::new(),
        }
    }

    pub fn contains(&self, id: &[u8]) -> bool {
        self.ids.contains(id)
    }

    /// Inserts an id and evicts the oldest if the window is full. Returns true if the id is new.
    pub fn insert(&mut self, id: &[u8]) -> bool {
        if self.contains(id) {
            return false;
        }
        let id: Arc<[u8]> = Arc::from(id);
        self.order.push_back(id.clone());
        self.ids.insert(id);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }

    /// All ids, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.order.iter().map(|id| &**id)
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_window_knows_exactly_the_last_ids_that_were_new(
            most in 1usize..8,
            ids in prop::collection::vec(0u8..12, 0..60),
        ) {
            let mut window = Window::new(most.try_into().unwrap());
            let mut model: Vec<u8> = Vec::new();
            for id in ids {
                prop_assert_eq!(window.insert(&[id]), !model.contains(&id));
                if !model.contains(&id) {
                    model.push(id);
                    model.drain(..model.len().saturating_sub(most));
                }
                let known: Vec<u8> = (0..12).filter(|id| window.contains(&[*id])).collect();
                let mut expected = model.clone();
                expected.sort_unstable();
                prop_assert_eq!(known, expected);
                prop_assert_eq!(window.iter().map(|id| id[0]).collect::<Vec<_>>(), model.clone());
            }
        }
    }
}
