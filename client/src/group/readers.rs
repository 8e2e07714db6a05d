//! Readers of a subscription's partitions.

use std::sync::Arc;
use std::time::Duration;

use super::rebalance::TopicPartition;
use crate::client::Inner;
use crate::reader::{OnTrimmed, Reader, ReaderBuilder, Skips};

/// Creates the readers of a subscription.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    pub inner: Arc<Inner>,
    pub trimmed: OnTrimmed,
    pub max_decompressed_bytes: usize,
    pub unavailable_timeout: Duration,
    pub filter: String,
    pub skips: Skips,
    /// Bytes that each reader may fetch ahead now.
    pub share_bytes: usize,
}

impl Readers {
    /// Opens a reader of a partition of the topic with this id, never of a later topic of the same name.
    pub fn open(
        &self,
        topic_id: u64,
        name: &TopicPartition,
        from: u64,
        share_bytes: usize,
    ) -> Reader {
        ReaderBuilder::new(self.inner.clone(), &name.topic, name.partition)
            .topic_id(topic_id)
            .on_trimmed(self.trimmed)
            .max_decompressed_bytes(self.max_decompressed_bytes)
            .unavailable_timeout(self.unavailable_timeout)
            .filter(&self.filter)
            .skips(self.skips.clone())
            .prefetch_bytes(share_bytes)
            .begin_at(from)
    }
}
