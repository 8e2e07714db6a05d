//! A batch on the producer's side: records with a common outcome, their memory, and their delivery deadline.

use std::sync::Arc;

use ropewalk_proto::batch::{BatchBuilder, BatchError, Compression, Header};
use ropewalk_proto::trace::TraceContext;
use tokio::time::Instant;

use super::closed;
use super::memory::MemoryPermit;
use super::pending::{BatchSlot, Completion};
use crate::error::{Error, Result};
use crate::event;
use crate::record::Record;

/// Choice of the partition of a batch's records; the same for all records of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Chosen by the caller.
    ByCaller,
    /// Chosen by the keys, or freely for records without a key, under the ring of this version.
    ByRing(u32),
}

/// Records that are sent together. A batch that is dropped unsettled reports that to its waiters.
#[derive(Debug)]
pub(super) struct Batch {
    pub completion: Arc<Completion>,
    pub choice: Choice,
    /// True if the ring routed one of its keys, so the node must know the same ring.
    pub keyed: bool,
    /// Time of its first record.
    pub since: Instant,
    /// True if an unanswered try may have written it.
    pub maybe_written: bool,
    /// Trace context of its first record that is sampled.
    pub trace: Option<Box<TraceContext>>,
    memory: MemoryPermit,
}

impl Batch {
    /// Ends the batch with its base offset, or with an error.
    pub fn settle(&self, result: Result<u64>) {
        self.completion.settle(result);
    }

    /// Fails the batch permanently. The outcome is unknown if an earlier try may have written it.
    pub fn fail(&self, error: &Error) {
        let unknown = self.maybe_written || error.outcome_unknown();
        self.settle(Err(error.clone().with_outcome_unknown(unknown)));
    }

    /// Ring version of its requests; 0 is unchecked.
    pub fn ring_version(&self) -> u32 {
        match self.choice {
            Choice::ByRing(version) if self.keyed => version,
            _ => 0,
        }
    }

    /// Hands over its memory to records that move elsewhere.
    pub fn release_memory(&mut self) -> MemoryPermit {
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

/// A batch that still accepts records.
#[derive(Debug)]
pub(super) struct OpenBatch {
    pub batch: Batch,
    pub builder: BatchBuilder,
}

impl OpenBatch {
    pub fn new(
        partition: u32,
        choice: Choice,
        compression: Compression,
        max_bytes: usize,
        since: Instant,
    ) -> OpenBatch {
        OpenBatch {
            batch: Batch {
                completion: Completion::new(partition),
                choice,
                keyed: false,
                since,
                maybe_written: false,
                trace: None,
                memory: MemoryPermit::nothing(),
            },
            builder: BatchBuilder::new(compression, max_bytes),
        }
    }

    /// Adds a record if it fits, and then takes over its memory.
    pub fn push(
        &mut self,
        record: &NewRecord,
        memory: &mut MemoryPermit,
    ) -> std::result::Result<Option<BatchSlot>, BatchError> {
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
        Ok(Some(BatchSlot {
            completion: self.batch.completion.clone(),
            index: u32::try_from(index).unwrap_or(u32::MAX),
        }))
    }
}

/// A record with its timestamp.
#[derive(Debug)]
pub(super) struct NewRecord {
    pub record: Record,
    pub timestamp_ms: i64,
    /// Time of the first send, if the record is routed again.
    pub since: Option<Instant>,
}

impl NewRecord {
    /// A record taken from an earlier batch, with the time of that batch's first record.
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
