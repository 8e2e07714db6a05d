//! Records and bytes by topic. A replica takes its topic's handle once, when it starts.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Count;

/// The label for topics beyond the bound. No topic can have this name.
pub const OTHERS: &str = "(others)";

/// The traffic of one topic on this node.
#[derive(Debug, Default)]
pub struct Topic {
    /// Acknowledged records, without duplicates.
    pub produced_records: Count,
    /// Bytes of their batches, as received.
    pub produced_bytes: Count,
    /// Records in the batches sent to readers.
    pub fetched_records: Count,
    /// Bytes of those batches.
    pub fetched_bytes: Count,
}

/// The topics that have replicas on this node.
#[derive(Debug)]
pub struct Topics {
    bound: usize,
    /// A topic without a replica is gone: it was deleted, or has left this node.
    known: Mutex<BTreeMap<String, Weak<Topic>>>,
    others: Arc<Topic>,
}

impl Topics {
    /// An empty table. At most `bound` topics get their own names.
    pub fn new(bound: usize) -> Topics {
        Topics {
            bound,
            known: Mutex::default(),
            others: Arc::default(),
        }
    }

    /// The handle of a topic. Beyond the bound, topics share one.
    pub fn of(&self, name: &str) -> Arc<Topic> {
        let mut known = self.known.lock();
        if let Some(topic) = known.get(name).and_then(Weak::upgrade) {
            return topic;
        }
        if known.len() >= self.bound {
            known.retain(|_, topic| topic.strong_count() > 0);
        }
        if known.len() >= self.bound {
            return self.others.clone();
        }
        let topic = Arc::new(Topic::default());
        known.insert(name.to_owned(), Arc::downgrade(&topic));
        topic
    }

    /// All topics by name, and the shared handle if it is in use.
    pub fn all(&self) -> Vec<(String, Arc<Topic>)> {
        let mut known = self.known.lock();
        known.retain(|_, topic| topic.strong_count() > 0);
        let named = known.iter();
        let named = named.filter_map(|(name, topic)| Some((name.clone(), topic.upgrade()?)));
        let others =
            (Arc::strong_count(&self.others) > 1).then(|| (OTHERS.to_owned(), self.others.clone()));
        named.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_past_the_bound_are_counted_together() {
        let topics = Topics::new(2);
        let held = ["a", "b", "c", "d"].map(|name| topics.of(name));
        held[2].produced_records.one();
        held[3].produced_records.one();
        let all = topics.all();
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", OTHERS]);
        assert_eq!(all[2].1.produced_records.get(), 2);
    }

    #[test]
    fn a_topic_that_left_makes_room_for_another() {
        let topics = Topics::new(1);
        let first = topics.of("a");
        assert!(Arc::ptr_eq(&first, &topics.of("a")));
        drop(first);
        let _second = topics.of("b");
        let names: Vec<String> = topics.all().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["b"]);
    }
}
