//! The settings of a reader.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::fetcher::Fetcher;
use super::{Reader, Skipped, Skips, Unreadable};
use crate::client::Inner;
use crate::error::{Error, Result};
use crate::metadata::PartitionId;
use crate::record::Offset;

/// What is fetched at a time, unless the prefetch bound is smaller.
const FETCH_BYTES: usize = 1 << 20;

/// What a reader does whose next offset was trimmed by retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trimmed {
    /// Says so: [`crate::ErrorKind::Trimmed`].
    #[default]
    Fail,
    /// Goes on at the first record there still is.
    SkipToBeginning,
}

/// Says how to read.
#[derive(Debug, Clone)]
#[must_use = "nothing happens before build()"]
pub struct ReaderBuilder {
    inner: Arc<Inner>,
    of: PartitionId,
    from: Offset,
    trimmed: Trimmed,
    prefetch_bytes: usize,
    max_decompressed_bytes: usize,
    patience: Duration,
    filter: String,
    skips: Skips,
}

impl ReaderBuilder {
    pub(crate) fn new(inner: Arc<Inner>, topic: &str, partition: u32) -> ReaderBuilder {
        let patience = inner.request_timeout;
        ReaderBuilder {
            inner,
            of: PartitionId::new(topic, 0, partition),
            from: Offset::Beginning,
            trimmed: Trimmed::default(),
            prefetch_bytes: 4 << 20,
            max_decompressed_bytes: 64 << 20,
            patience,
            filter: String::new(),
            skips: Skips::default(),
        }
    }

    /// Where to begin. The default is the beginning.
    pub fn from(mut self, place: Offset) -> ReaderBuilder {
        self.from = place;
        self
    }

    /// Reads this topic only, by its [`Reader::topic_id`]: for a position that was kept from an earlier
    /// reader, which means nothing in a later topic of the same name. The default, and 0, is whichever topic
    /// has the name when the reader begins.
    pub fn topic_id(mut self, topic_id: u64) -> ReaderBuilder {
        self.of.topic_id = topic_id;
        self
    }

    /// What to do when the next offset is no longer there. The default is to fail.
    pub fn on_trimmed(mut self, trimmed: Trimmed) -> ReaderBuilder {
        self.trimmed = trimmed;
        self
    }

    /// Policy for a batch that does not unpack or parse, and for records that can't be filtered. The
    /// default is to fail. One whose CRC does not match always fails.
    pub fn on_unreadable(mut self, unreadable: Unreadable) -> ReaderBuilder {
        self.skips.policy = unreadable;
        self
    }

    /// A listener for what is skipped as unreadable. It must return soon, and not wait for anything.
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

    /// How many bytes of batches, as they are stored, may wait to be handed out. One batch comes
    /// even if it is larger. The default is 4 MiB.
    pub fn prefetch_bytes(mut self, bytes: usize) -> ReaderBuilder {
        self.prefetch_bytes = bytes;
        self
    }

    /// How large one batch may become when it is unpacked, in bytes. The default is 64 MiB.
    pub fn max_decompressed_bytes(mut self, bytes: usize) -> ReaderBuilder {
        self.max_decompressed_bytes = bytes;
        self
    }

    /// For how long the partition may be unreadable (no leader, no connection) before the reader
    /// says so. The default is the client's request timeout.
    pub fn patience(mut self, patience: Duration) -> ReaderBuilder {
        self.patience = patience;
        self
    }

    /// Only records for which this expression of the Common Expression Language is true, as `type ==
    /// 'order.placed' && json.total > 100`: the cluster looks at them before it sends them. The position
    /// passes the others. The default, and
    /// an empty one, is to read everything.
    pub fn filter(mut self, expression: impl Into<String>) -> ReaderBuilder {
        self.filter = expression.into();
        self
    }

    /// Finds where to begin, and begins to fetch.
    ///
    /// # Errors
    /// As for [`crate::Client::offset`];
    /// [`ErrorCode::TopicRecreated`](crate::ErrorCode::TopicRecreated) if the topic with the id asked for is
    /// gone, and another has its name; `InvalidArgument` for settings that make no sense;
    /// [`ErrorCode::InvalidFilter`](crate::ErrorCode::InvalidFilter) with the place of the mistake in a
    /// filter; `UnsupportedVersion` if the cluster knows no filters.
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

    /// Begins to fetch at an offset, which is looked up nowhere first.
    pub(crate) fn begin_at(self, position: u64) -> Reader {
        let fetch_bytes = self.prefetch_bytes.min(FETCH_BYTES);
        // Each waiting chunk holds a part of the room, so that the channel needs no bound of its own
        // beyond one chunk a byte; a handful keeps the task from running far ahead in small steps.
        let (chunks, fetched) = mpsc::channel(self.prefetch_bytes.div_ceil(fetch_bytes).max(1));
        let fetcher = Fetcher::new(
            self.inner,
            self.of.clone(),
            position,
            self.trimmed,
            self.patience,
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
