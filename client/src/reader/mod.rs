//! Reading one partition in order: a task fetches ahead from whoever leads it, the stream hands out
//! one record after the other. Where a reader stands is the application's to keep.

mod builder;
mod fetcher;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use ropewalk_proto::batch::{BatchView, Records};
use ropewalk_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::task::AbortOnDropHandle;

pub use builder::{ReaderBuilder, Trimmed};

use crate::error::{Error, ErrorKind, Result};
use crate::record::ConsumedRecord;

/// The records of one partition, in order, as a [`Stream`] that has no end: past the last record it
/// waits for the next.
///
/// Changes of the leader pass unseen. After an error the stream ends; build a new reader from
/// [`Reader::position`] to go on. Cancel-safe: a record is handed out or still to come.
pub struct Reader {
    topic: String,
    partition: u32,
    /// The offset of the next record.
    position: u64,
    high_watermark: u64,
    max_decompressed_bytes: usize,
    fetched: mpsc::Receiver<Result<Chunk>>,
    chunk: Option<OpenChunk>,
    failed: bool,
    _fetching: AbortOnDropHandle<()>,
}

/// What one fetch brought.
struct Chunk {
    batches: std::vec::IntoIter<v1::FetchedBatch>,
    /// Where the log begins for this reader now; past the position if records were trimmed.
    from: u64,
    /// Where to go on after it: past what a filter left out behind the last record.
    to: u64,
    high_watermark: u64,
    room: OwnedSemaphorePermit,
}

/// A chunk that is being handed out.
struct OpenChunk {
    batches: std::vec::IntoIter<v1::FetchedBatch>,
    records: Option<(u64, Records)>,
    /// The offset after the batch whose records these are: compaction may have taken its last ones.
    after: u64,
    /// The offset after the whole chunk.
    to: u64,
    _room: OwnedSemaphorePermit,
}

impl Reader {
    /// The topic it reads.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition it reads.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The offset of the next record to come, or past what was trimmed or filtered out before it.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The end of the log as last heard of: the offset after the last record that is safe.
    pub fn high_watermark(&self) -> u64 {
        self.high_watermark
    }

    /// The next record before an offset; none once there is none left before it, though the end of the
    /// log may be there, and nothing more come. For who reads a span of it: a record at `end` or behind
    /// it, where all before it is gone, is passed over.
    pub async fn next_before(&mut self, end: u64) -> Option<Result<ConsumedRecord>> {
        poll_fn(|context| {
            if self.position >= end {
                return Poll::Ready(None);
            }
            match Pin::new(&mut *self).poll_next(context) {
                Poll::Pending if self.position >= end => Poll::Ready(None),
                Poll::Ready(Some(Ok(record))) if record.offset >= end => Poll::Ready(None),
                next => next,
            }
        })
        .await
    }

    /// Whether a record, or an error, waits to be taken.
    pub(crate) fn has_waiting(&self) -> bool {
        let unpacked = |chunk: &OpenChunk| {
            let records = chunk.records.as_ref();
            records.is_some_and(|(_, records)| records.size_hint().1 > Some(1))
        };
        let opened = self.chunk.as_ref();
        opened.is_some_and(|chunk| chunk.batches.len() > 0 || unpacked(chunk))
            || !self.fetched.is_empty()
    }

    /// The next record of the chunk at hand.
    fn next_of_chunk(&mut self) -> Option<Result<ConsumedRecord>> {
        let chunk = self.chunk.as_mut()?;
        loop {
            if let Some((base_offset, records)) = &mut chunk.records {
                for record in records.by_ref() {
                    let record = match record {
                        Ok(record) => record,
                        Err(error) => {
                            return Some(Err(corrupt(
                                &self.topic,
                                self.partition,
                                self.position,
                                &error,
                            )));
                        }
                    };
                    let delta = u64::try_from(record.offset_delta).unwrap_or(0);
                    let offset = base_offset.saturating_add(delta);
                    if offset < self.position {
                        continue;
                    }
                    self.position = offset.saturating_add(1);
                    return Some(Ok(ConsumedRecord {
                        partition: self.partition,
                        offset,
                        timestamp_ms: record.timestamp_ms,
                        key: record.key,
                        value: record.value,
                        headers: record.headers,
                    }));
                }
                chunk.records = None;
                self.position = self.position.max(chunk.after);
            }
            let Some(fetched) = chunk.batches.next() else {
                self.position = self.position.max(chunk.to);
                self.chunk = None;
                return None;
            };
            match unpack(fetched, self.max_decompressed_bytes) {
                Ok((records, after)) => {
                    if records.is_none() {
                        self.position = self.position.max(after);
                    }
                    chunk.records = records;
                    chunk.after = after;
                }
                Err(error) => {
                    return Some(Err(corrupt(
                        &self.topic,
                        self.partition,
                        self.position,
                        &error,
                    )));
                }
            }
        }
    }

    fn open(&mut self, chunk: Chunk) {
        self.position = self.position.max(chunk.from);
        self.high_watermark = self.high_watermark.max(chunk.high_watermark);
        self.chunk = Some(OpenChunk {
            batches: chunk.batches,
            records: None,
            after: 0,
            to: chunk.to,
            _room: chunk.room,
        });
    }
}

/// The records of a batch with its base offset, none for the log's own markers; and the offset
/// after the batch.
type Unpacked = (Option<(u64, Records)>, u64);

fn unpack(
    fetched: v1::FetchedBatch,
    max_bytes: usize,
) -> std::result::Result<Unpacked, ropewalk_proto::batch::BatchError> {
    let base_offset = fetched.base_offset;
    let view = BatchView::trusted(fetched.batch)?;
    view.check_crc()?;
    let last_delta = u64::try_from(view.last_offset_delta()).unwrap_or(0);
    let after = base_offset.saturating_add(last_delta).saturating_add(1);
    if view.is_control() {
        return Ok((None, after));
    }
    Ok((Some((base_offset, view.iter_records(max_bytes)?)), after))
}

fn corrupt(
    topic: &str,
    partition: u32,
    offset: u64,
    error: &ropewalk_proto::batch::BatchError,
) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "the batch at offset {offset} of {topic}/{partition} can't be read: {error}; read again, or from a later offset"
        ),
    )
}

impl Stream for Reader {
    type Item = Result<ConsumedRecord>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let reader = &mut *self;
        loop {
            if reader.failed {
                return Poll::Ready(None);
            }
            let next = match reader.next_of_chunk() {
                Some(next) => next,
                None => match ready!(reader.fetched.poll_recv(context)) {
                    Some(Ok(chunk)) => {
                        reader.open(chunk);
                        continue;
                    }
                    Some(Err(error)) => Err(error),
                    None => return Poll::Ready(None),
                },
            };
            reader.failed = next.is_err();
            return Poll::Ready(Some(next));
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
