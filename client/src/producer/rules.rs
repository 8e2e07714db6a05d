//! Limits of the topic on records and batches, as the cluster last reported them. They can change during the
//! life of a producer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, ErrorKind};
use crate::metadata::Topic;
use crate::record::Record;

/// Limit on batches of a topic that reports none.
const MAX_BATCH_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Rules {
    max_batch_bytes: AtomicUsize,
    keys_only: AtomicBool,
}

impl Rules {
    pub fn of(topic: &Topic) -> Rules {
        let rules = Rules {
            max_batch_bytes: AtomicUsize::new(MAX_BATCH_BYTES),
            keys_only: AtomicBool::new(false),
        };
        rules.learn(topic);
        rules
    }

    /// Takes over the topic's current rules.
    pub fn learn(&self, topic: &Topic) {
        let most = match topic.max_batch_bytes {
            0 => MAX_BATCH_BYTES,
            bytes => bytes as usize,
        };
        self.max_batch_bytes.store(most, Ordering::Relaxed);
        self.keys_only.store(topic.keys_only, Ordering::Relaxed);
    }

    /// Maximum size of a batch as sent, in bytes.
    pub fn max_batch_bytes(&self) -> usize {
        self.max_batch_bytes.load(Ordering::Relaxed)
    }

    /// Refuses a record that the topic does not accept in any batch.
    pub fn check(&self, record: &Record) -> Result<(), Error> {
        if record.key.is_some() || !self.keys_only.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidArgument,
            "the record has no key, and its topic is compacted: of each key it keeps the last record; \
             give every record a key, or set cleanup=delete",
        ))
    }
}
