//! Reads one partition in order. A task fetches ahead from the leader, and the stream hands out one record
//! after another. The application must keep the position of a reader.

mod builder;
mod fetcher;
mod skips;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use ropewalk_proto::batch::{BatchError, BatchView, Records};
use ropewalk_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::task::AbortOnDropHandle;

pub use builder::{OnTrimmed, ReaderBuilder};
pub(crate) use skips::Skips;
pub use skips::{OnUnreadable, Skipped};

use crate::error::{Error, ErrorKind, Result};
use crate::metadata::PartitionId;
use crate::record::ConsumedRecord;

/// The records of one partition, in order, as an endless [`Stream`]: past the last record it waits for the
/// next.
///
/// Leader changes are invisible. A reader reads one topic. If the topic is deleted and created again, the
/// reader ends with [`ErrorCode::TopicRecreated`](crate::ErrorCode::TopicRecreated). After an error the
/// stream ends. To continue, build a new reader from [`Reader::position`], with [`ReaderBuilder::topic_id`].
/// Cancel-safe: a cancelled call loses no record.
pub struct Reader {
    of: PartitionId,
    /// The offset of the next record.
    position: u64,
    high_watermark: u64,
    max_decompressed_bytes: usize,
    skips: Skips,
    fetched: mpsc::Receiver<Result<Chunk>>,
    chunk: Option<OpenChunk>,
    failed: bool,
    _fetching: AbortOnDropHandle<()>,
}

/// Result of one fetch.
struct Chunk {
    batches: std::vec::IntoIter<v1::FetchedBatch>,
    /// Start of the log for this reader now; past the position if records were trimmed.
    from: u64,
    /// Next offset to read after the chunk: past filtered records behind the last one.
    to: u64,
    high_watermark: u64,
    room: OwnedSemaphorePermit,
}

/// The chunk that is being handed out.
struct OpenChunk {
    batches: std::vec::IntoIter<v1::FetchedBatch>,
    records: Option<(u64, Records)>,
    /// The offset after the batch of these records. Compaction may have removed its last records.
    after: u64,
    /// The offset after the whole chunk.
    to: u64,
    _room: OwnedSemaphorePermit,
}

impl Reader {
    /// Name of the topic.
    pub fn topic(&self) -> &str {
        &self.of.topic
    }

    /// Id of the topic. A position is valid only in the topic with this id.
    pub fn topic_id(&self) -> u64 {
        self.of.topic_id
    }

    /// Number of the partition.
    pub fn partition(&self) -> u32 {
        self.of.partition
    }

    /// The offset of the next record, past trimmed and filtered records before it.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The high watermark as last reported: the offset after the last committed record.
    pub fn high_watermark(&self) -> u64 {
        self.high_watermark
    }

    /// Number of unreadable batches that were skipped. It stays 0 unless the reader allows it
    /// ([`ReaderBuilder::on_unreadable`]).
    pub fn skipped_batches(&self) -> u64 {
        self.skips.batches()
    }

    /// The next record before an offset, for callers that read a range. Returns none once there is none left
    /// before `end`, even at the end of the log, where no further record may arrive. If all records before
    /// `end` are gone, it skips a record at or behind `end`.
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

    /// Returns true if a record, or an error, is ready.
    pub(crate) fn has_waiting(&self) -> bool {
        let unpacked = |chunk: &OpenChunk| {
            let records = chunk.records.as_ref();
            records.is_some_and(|(_, records)| records.size_hint().1 > Some(1))
        };
        let opened = self.chunk.as_ref();
        opened.is_some_and(|chunk| chunk.batches.len() > 0 || unpacked(chunk))
            || !self.fetched.is_empty()
    }

    /// The next record of the current chunk.
    fn next_of_chunk(&mut self) -> Option<Result<ConsumedRecord>> {
        loop {
            let chunk = self.chunk.as_mut()?;
            if let Some((base_offset, records)) = &mut chunk.records {
                for record in records.by_ref() {
                    let record = match record {
                        Ok(record) => record,
                        Err(error) => {
                            let after = chunk.after;
                            if let Err(error) = self.pass(&error, after) {
                                return Some(Err(error));
                            }
                            break;
                        }
                    };
                    let delta = u64::try_from(record.offset_delta).unwrap_or(0);
                    let offset = base_offset.saturating_add(delta);
                    if offset < self.position {
                        continue;
                    }
                    self.position = offset.saturating_add(1);
                    return Some(Ok(ConsumedRecord {
                        partition: self.of.partition,
                        offset,
                        timestamp_ms: record.timestamp_ms,
                        key: record.key,
                        value: record.value,
                        headers: record.headers,
                    }));
                }
                let chunk = self.chunk.as_mut()?;
                chunk.records = None;
                self.position = self.position.max(chunk.after);
            }
            let chunk = self.chunk.as_mut()?;
            let Some(fetched) = chunk.batches.next() else {
                self.position = self.position.max(chunk.to);
                self.chunk = None;
                return None;
            };
            let after = end_offset(&fetched);
            match unpack(fetched, self.max_decompressed_bytes) {
                Ok(records) => {
                    if records.is_none() {
                        self.position = self.position.max(after);
                    }
                    chunk.records = records;
                    chunk.after = after;
                }
                Err(error) => {
                    if let Err(error) = self.pass(&error, after) {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// Skips the rest of an unreadable batch, if the policy allows it.
    fn pass(&mut self, why: &BatchError, after: u64) -> Result<()> {
        let error = corrupt(&self.of, self.position, why);
        if !self.skips.pass(why) {
            return Err(error);
        }
        self.skips.report(&Skipped {
            topic: self.of.topic.to_string(),
            partition: self.of.partition,
            offset: self.position,
            next_offset: after,
            error,
        });
        self.position = self.position.max(after);
        Ok(())
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

/// The records of a batch with its base offset; none for the log's own markers.
type Unpacked = Option<(u64, Records)>;

fn unpack(
    fetched: v1::FetchedBatch,
    max_bytes: usize,
) -> std::result::Result<Unpacked, BatchError> {
    let base_offset = fetched.base_offset;
    let view = BatchView::trusted(fetched.batch)?;
    view.check_crc()?;
    if view.is_control() {
        return Ok(None);
    }
    Ok(Some((base_offset, view.iter_records(max_bytes)?)))
}

/// The offset after a batch, by its header.
fn end_offset(fetched: &v1::FetchedBatch) -> u64 {
    let view = BatchView::trusted(fetched.batch.clone());
    // If the bytes are not a batch, the reader fails when it unpacks them.
    let last_delta = view.map_or(0, |view| {
        u64::try_from(view.last_offset_delta()).unwrap_or(0)
    });
    fetched
        .base_offset
        .saturating_add(last_delta)
        .saturating_add(1)
}

fn corrupt(of: &PartitionId, offset: u64, error: &BatchError) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "the batch at offset {offset} of {of} can't be read: {error}; skip what nobody can read, or read from a later offset"
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
            .field("of", &self.of)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
