//! A batch on the producer's side: records that share a fate, the memory they hold, and until when
//! they must be delivered.

use std::sync::Arc;

use ropewalk_proto::batch::{BatchBuilder, BatchError, Compression, Header};
use ropewalk_proto::trace::TraceContext;
use tokio::time::Instant;

use super::closed;
use super::memory::Held;
use super::ticket::{Completion, Place};
use crate::error::{Error, Result};
use crate::event;
use crate::record::Record;

/// How the partition of a batch's records was chosen; the records of one batch agree in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// By the caller.
    ByCaller,
    /// By their keys, or freely where they have none, under the ring of this version.
    ByRing(u32),
}

/// Records that go out together. Whoever drops it unsettled tells those who wait for them.
#[derive(Debug)]
pub(super) struct Batch {
    pub completion: Arc<Completion>,
    pub choice: Choice,
    /// Whether a key of it was routed by the ring, so that the node must know the same ring.
    pub keyed: bool,
    /// When its first record came.
    pub since: Instant,
    /// Whether it was sent, and may have been written by a try that was not answered.
    pub maybe_written: bool,
    /// The trace of its first record that has one which is to be recorded.
    pub trace: Option<Box<TraceContext>>,
    memory: Held,
}

impl Batch {
    /// Ends it: its base offset, or why there is none.
    pub fn settle(&self, result: Result<u64>) {
        self.completion.settle(result);
    }

    /// Fails it for good. What an earlier try may have done counts.
    pub fn fail(&self, error: &Error) {
        let unknown = self.maybe_written || error.outcome_unknown();
        self.settle(Err(error.clone().with_outcome_unknown(unknown)));
    }

    /// The ring version a request for it carries; 0 is unchecked.
    pub fn ring_version(&self) -> u32 {
        match self.choice {
            Choice::ByRing(version) if self.keyed => version,
            _ => 0,
        }
    }

    /// Hands over the memory it holds, to records that go elsewhere.
    pub fn release_memory(&mut self) -> Held {
        self.memory.take()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if !self.completion.is_settled() {
            self.fail(&closed());
        }
    }
}

/// A batch that still takes records.
#[derive(Debug)]
pub(super) struct Open {
    pub batch: Batch,
    pub builder: BatchBuilder,
}

impl Open {
    pub fn new(
        partition: u32,
        choice: Choice,
        compression: Compression,
        max_bytes: usize,
        since: Instant,
    ) -> Open {
        Open {
            batch: Batch {
                completion: Completion::new(partition),
                choice,
                keyed: false,
                since,
                maybe_written: false,
                trace: None,
                memory: Held::nothing(),
            },
            builder: BatchBuilder::new(compression, max_bytes),
        }
    }

    /// Adds a record if it fits. Its memory is the batch's from then on.
    pub fn push(
        &mut self,
        record: &NewRecord,
        memory: &mut Held,
    ) -> std::result::Result<Option<Place>, BatchError> {
        let index = self.builder.record_count();
        let fits = self.builder.push(
            record.key(),
            record.value(),
            record.headers(),
            record.timestamp_ms,
        )?;
        if !fits {
            return Ok(None);
        }
        self.batch.keyed |= record.record.key.is_some();
        if self.batch.trace.is_none() {
            self.batch.trace = event::sampled(record.headers());
        }
        self.batch.memory.join(memory);
        Ok(Some(Place {
            completion: self.batch.completion.clone(),
            index: u32::try_from(index).unwrap_or(u32::MAX),
        }))
    }
}

/// A record with its time.
#[derive(Debug)]
pub(super) struct NewRecord {
    pub record: Record,
    pub timestamp_ms: i64,
    /// When it was sent first, if it was routed before.
    pub since: Option<Instant>,
}

impl NewRecord {
    /// A record that was in a batch before, whose first record came then.
    pub fn again(record: ropewalk_proto::batch::Record, since: Instant) -> NewRecord {
        NewRecord {
            record: Record {
                key: record.key,
                value: record.value,
                headers: record.headers,
                ..Record::default()
            },
            timestamp_ms: record.timestamp_ms,
            since: Some(since),
        }
    }

    fn key(&self) -> Option<&[u8]> {
        self.record.key.as_deref()
    }

    fn value(&self) -> Option<&[u8]> {
        self.record.value.as_deref()
    }

    fn headers(&self) -> &[Header] {
        &self.record.headers
    }
}
