//! Policy for unreadable batches, and reports on those that are skipped. A batch whose CRC does not match is
//! damaged, and is never skipped: an intact replica has the original.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ropewalk_proto::batch::BatchError;

use crate::error::Error;

/// Policy for a batch that does not unpack or parse, although its CRC matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnreadable {
    /// Fails with [`crate::ErrorKind::Corrupt`].
    #[default]
    Fail,
    /// Skips it, and reports it: in the log, to a listener, and in a count.
    Skip,
}

/// Records that a reader could not read and skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: u32,
    /// Offset of the first skipped record.
    pub offset: u64,
    /// Offset after the last skipped record.
    pub next_offset: u64,
    /// Reason for which they could not be read.
    pub error: Error,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "offsets {} to {} of {}/{} were skipped: {}",
            self.offset,
            self.next_offset.saturating_sub(1),
            self.topic,
            self.partition,
            self.error
        )
    }
}

type Hears = dyn Fn(&Skipped) + Send + Sync;

/// Skipping policy and state of one reader, or of all readers of a subscription.
#[derive(Clone, Default)]
pub(crate) struct Skips {
    pub policy: OnUnreadable,
    listener: Option<Arc<Hears>>,
    batches: Arc<AtomicU64>,
}

impl Skips {
    /// Sets the listener for skipped batches.
    pub fn listener(&mut self, listener: impl Fn(&Skipped) + Send + Sync + 'static) {
        self.listener = Some(Arc::new(listener));
    }

    /// Returns true if the policy allows skipping a batch with this error.
    pub fn pass(&self, error: &BatchError) -> bool {
        let readable_by_nobody = matches!(
            error,
            BatchError::Compressed { .. }
                | BatchError::Expands { .. }
                | BatchError::Record { .. }
                | BatchError::TrailingBytes { .. }
        );
        self.policy == OnUnreadable::Skip && readable_by_nobody
    }

    /// Reports a skipped batch.
    pub fn report(&self, skipped: &Skipped) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            topic = skipped.topic,
            partition = skipped.partition,
            offset = skipped.offset,
            next_offset = skipped.next_offset,
            error = %skipped.error,
            "a batch can't be read and was skipped; see who published it"
        );
        if let Some(listener) = &self.listener {
            listener(skipped);
        }
    }

    /// Number of skipped batches.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Skips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Skips")
            .field("policy", &self.policy)
            .field("batches", &self.batches())
            .finish_non_exhaustive()
    }
}
