//! The settings of a reader.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::fetcher::Fetcher;
use super::{OnUnreadable, Reader, Skipped, Skips};
use crate::client::Inner;
use crate::error::{Error, Result};
use crate::metadata::PartitionId;
use crate::record::Offset;

/// Size of one fetch, unless the prefetch bound is smaller.
const FETCH_BYTES: usize = 1 << 20;

/// Policy of a reader whose next offset was trimmed by retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnTrimmed {
    /// Fails with [`crate::ErrorKind::Trimmed`].
    #[default]
    Fail,
    /// Continues at the first record in the log.
    SkipToBeginning,
}

/// Builder of a [`Reader`].
#[derive(Debug, Clone)]
#[must_use = "nothing happens before build()"]
pub struct ReaderBuilder {
    inner: Arc<Inner>,
    of: PartitionId,
    from: Offset,
    trimmed: OnTrimmed,
    prefetch_bytes: usize,
    max_decompressed_bytes: usize,
    unavailable_timeout: Duration,
    filter: String,
    skips: Skips,
}

impl ReaderBuilder {
    pub(crate) fn new(inner: Arc<Inner>, topic: &str, partition: u32) -> ReaderBuilder {
        let unavailable_timeout = inner.request_timeout;
        ReaderBuilder {
            inner,
            of: PartitionId::new(topic, 0, partition),
            from: Offset::Beginning,
            trimmed: OnTrimmed::default(),
            prefetch_bytes: 4 << 20,
            max_decompressed_bytes: 64 << 20,
            unavailable_timeout,
            filter: String::new(),
            skips: Skips::default(),
        }
    }

    /// Start position. The default is the beginning.
    pub fn from(mut self, place: Offset) -> ReaderBuilder {
        self.from = place;
        self
    }

    /// Reads only the topic with this [`Reader::topic_id`]. Use it with a position saved from an earlier
    /// reader, which has no meaning in a later topic of the same name. The default, also 0, is the topic that
    /// has the name when the reader starts.
    pub fn topic_id(mut self, topic_id: u64) -> ReaderBuilder {
        self.of.topic_id = topic_id;
        self
    }

    /// Policy if the next offset is no longer in the log. The default is to fail.
    pub fn on_trimmed(mut self, trimmed: OnTrimmed) -> ReaderBuilder {
        self.trimmed = trimmed;
        self
    }

    /// Policy for a batch that does not unpack or parse, and for records that can't be filtered. The default
    /// is to fail. A batch whose CRC does not match always fails.
    pub fn on_unreadable(mut self, unreadable: OnUnreadable) -> ReaderBuilder {
        self.skips.policy = unreadable;
        self
    }

    /// Listener for records that are skipped as unreadable. It must return soon, and must not block.
    pub fn on_skipped(
        mut self,
        listener: impl Fn(&Skipped) + Send + Sync + 'static,
    ) -> ReaderBuilder {
        self.skips.listener(listener);
        self
    }

    pub(crate) fn skips(mut self, skips: Skips) -> ReaderBuilder {
        self.skips = skips;
        self
    }

    /// Maximum size of prefetched batches, as stored, in bytes. One batch is fetched even if it is larger.
    /// The default is 4 MiB.
    pub fn prefetch_bytes(mut self, bytes: usize) -> ReaderBuilder {
        self.prefetch_bytes = bytes;
        self
    }

    /// Maximum size of one unpacked batch, in bytes. The default is 64 MiB.
    pub fn max_decompressed_bytes(mut self, bytes: usize) -> ReaderBuilder {
        self.max_decompressed_bytes = bytes;
        self
    }

    /// Time for which the partition may be unreadable (no leader, no connection) before the reader fails. The
    /// default is the client's request timeout.
    pub fn unavailable_timeout(mut self, timeout: Duration) -> ReaderBuilder {
        self.unavailable_timeout = timeout;
        self
    }

    /// Reads only the records for which this expression of the Common Expression Language is true, as `type
    /// == 'order.placed' && json.total > 100`. The cluster evaluates it before it sends the records. The
    /// position passes the others. The default is the empty filter, which reads everything.
    pub fn filter(mut self, expression: impl Into<String>) -> ReaderBuilder {
        self.filter = expression.into();
        self
    }

    /// Looks up the start position, and starts to fetch.
    ///
    /// # Errors
    /// As for [`crate::Client::offset`]. [`ErrorCode::TopicRecreated`](crate::ErrorCode::TopicRecreated) if
    /// the topic with the requested id is gone, and another has its name. `InvalidArgument` for invalid
    /// settings. [`ErrorCode::InvalidFilter`](crate::ErrorCode::InvalidFilter) with the position of the
    /// mistake in a filter. `UnsupportedVersion` if the cluster supports no filters.
    pub async fn build(mut self) -> Result<Reader> {
        if self.prefetch_bytes == 0 {
            return Err(Error::invalid("prefetch_bytes of 0; choose at least 1"));
        }
        self.inner.check_filter(&self.filter).await?;
        let found = self.inner.place(self.of, self.from).await?;
        let position = found.1;
        self.of = found.0;
        Ok(self.begin_at(position))
    }

    /// Starts to fetch at an offset, without a lookup.
    pub(crate) fn begin_at(self, position: u64) -> Reader {
        let fetch_bytes = self.prefetch_bytes.min(FETCH_BYTES);
        // Each waiting chunk holds a part of the room, so the channel needs no bound of its own beyond one
        // chunk a byte. A small capacity keeps the task from running far ahead in small steps.
        let (chunks, fetched) = mpsc::channel(self.prefetch_bytes.div_ceil(fetch_bytes).max(1));
        let fetcher = Fetcher::new(
            self.inner,
            self.of.clone(),
            position,
            self.trimmed,
            self.unavailable_timeout,
            self.filter,
            self.skips.clone(),
            fetch_bytes,
            Arc::new(Semaphore::new(
                self.prefetch_bytes.min(Semaphore::MAX_PERMITS),
            )),
            chunks,
        );
        Reader {
            of: self.of,
            position,
            high_watermark: position,
            max_decompressed_bytes: self.max_decompressed_bytes,
            skips: self.skips,
            fetched,
            chunk: None,
            failed: false,
            _fetching: AbortOnDropHandle::new(tokio::spawn(fetcher.run())),
        }
    }
}
