//! The task behind a reader: fetches from the leader as long as there is room, and finds the leader again
//! after it has moved.

use std::sync::Arc;
use std::time::Duration;

use ropewalk_proto::batch::BatchView;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use ropewalk_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Chunk, OnTrimmed, OnUnreadable, Skipped, Skips, corrupt, end_offset};
use crate::backoff::Backoff;
use crate::client::{Inner, timed_out};
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::{Leader, PartitionId};
use crate::record::Offset;
use crate::telling::Telling;

/// Time for which the leader may hold a fetch at the end of the log.
const WAIT: Duration = Duration::from_secs(5);
/// Further time limit of its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Maximum unpacked size of a batch that is searched for a record that can't be filtered.
const UNPACKED_BYTES: usize = 64 << 20;

pub(super) struct Fetcher {
    inner: Arc<Inner>,
    of: PartitionId,
    /// The next offset to fetch.
    next: u64,
    /// The newest epoch of an answer.
    epoch: u64,
    trimmed: OnTrimmed,
    unavailable_timeout: Duration,
    /// The filter; empty for all records.
    filter: String,
    skips: Skips,
    fetch_bytes: usize,
    room: Arc<Semaphore>,
    chunks: mpsc::Sender<Result<Chunk>>,
    stream: Option<FetchStream>,
    /// Time of the first of the current failures.
    failing_since: Option<Instant>,
    /// Errors since the last answer.
    failed: Telling,
    backoff: Backoff,
}

/// A fetch stream to the leader.
struct FetchStream {
    leader: Leader,
    requests: mpsc::Sender<v1::FetchRequest>,
    answers: Streaming<v1::FetchResponse>,
    last_id: u64,
}

impl Fetcher {
    #[allow(clippy::too_many_arguments)] // the builder's settings, once
    pub fn new(
        inner: Arc<Inner>,
        of: PartitionId,
        next: u64,
        trimmed: OnTrimmed,
        unavailable_timeout: Duration,
        filter: String,
        skips: Skips,
        fetch_bytes: usize,
        room: Arc<Semaphore>,
        chunks: mpsc::Sender<Result<Chunk>>,
    ) -> Fetcher {
        let backoff = Backoff::new(inner.draw());
        Fetcher {
            inner,
            of,
            next,
            epoch: 0,
            trimmed,
            unavailable_timeout,
            filter,
            skips,
            fetch_bytes,
            room,
            chunks,
            stream: None,
            failing_since: None,
            failed: Telling::default(),
            backoff,
        }
    }

    /// Fetches until the reader is gone, or a failure is permanent.
    pub async fn run(mut self) {
        loop {
            match self.next_chunk().await {
                Ok(Some(chunk)) => {
                    if self.chunks.send(Ok(chunk)).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    // The reader may be gone; then the error has no recipient.
                    let _ = self.chunks.send(Err(error)).await;
                    return;
                }
            }
        }
    }

    /// Fetches once; none if there were no records, or another try may help.
    async fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        let wanted = u32::try_from(self.fetch_bytes).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(wanted).await;
        let room = room.map_err(|_| Error::new(ErrorKind::Closed, "the reader is closed"))?;
        let filter = self.filter.clone();
        match self.fetch(filter, self.fetch_bytes).await {
            Ok(answer) => {
                self.failing_since = None;
                self.failed = Telling::default();
                self.backoff.succeeded();
                Ok(self.accept(answer, room))
            }
            Err(error) => {
                drop(room);
                let from = self.next;
                self.after(error).await?;
                Ok(self.skipped(from))
            }
        }
    }

    /// An empty chunk that moves the reader past skipped or trimmed records, if there are any. The next
    /// record may be far off.
    fn skipped(&self, from: u64) -> Option<Chunk> {
        let room = self.room.clone().try_acquire_many_owned(0).ok()?;
        (self.next > from).then(|| Chunk {
            batches: Vec::new().into_iter(),
            from: self.next,
            to: self.next,
            high_watermark: self.next,
            room,
        })
    }

    fn accept(
        &mut self,
        answer: v1::FetchResponse,
        mut room: OwnedSemaphorePermit,
    ) -> Option<Chunk> {
        self.epoch = self.epoch.max(answer.leader_epoch);
        let from = self.next;
        let mut bytes = 0;
        for fetched in &answer.batches {
            bytes += fetched.batch.len();
            self.next = self.next.max(end_offset(fetched));
        }
        // `next_offset` is past filtered records only.
        self.next = self.next.max(answer.next_offset.unwrap_or(0));
        if self.next == from {
            return None;
        }
        // Returns unused room to the next fetch. A larger batch counts only as the whole bound, so that it
        // still fits.
        let unused = self.fetch_bytes.saturating_sub(bytes);
        drop(room.split(unused));
        Some(Chunk {
            batches: answer.batches.into_iter(),
            from,
            to: self.next,
            high_watermark: answer.high_watermark,
            room,
        })
    }

    async fn fetch(&mut self, filter: String, max_bytes: usize) -> Result<v1::FetchResponse> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open().await?,
        };
        let request = v1::FetchRequest {
            request_id: stream.last_id + 1,
            topic: self.of.topic.to_string(),
            topic_id: self.of.topic_id,
            partition: self.of.partition,
            offset: self.next,
            max_bytes: u32::try_from(max_bytes).unwrap_or(u32::MAX),
            max_wait_ms: u32::try_from(WAIT.as_millis()).unwrap_or(u32::MAX),
            leader_epoch: self.epoch,
            filter,
        };
        let filters = !request.filter.is_empty();
        let answered = timeout(WAIT + ANSWER_WITHIN, stream.exchange(request)).await;
        let answered = answered
            .unwrap_or_else(|_| Err(timed_out(&stream.leader.address, WAIT + ANSWER_WITHIN)));
        let metadata = &self.inner.metadata;
        match answered {
            Ok(v1::FetchResponse {
                error: Some(error), ..
            }) => {
                if error.leader.is_some() {
                    metadata.not_leader(&self.of, stream.leader.node_id, error.leader.as_ref());
                } else if ErrorCode::from_number(error.code) != ErrorCode::OffsetOutOfRange {
                    metadata.not_leader(&self.of, stream.leader.node_id, None);
                }
                Err(WireError::from(error).into())
            }
            Ok(answer) if filters && answer.next_offset.is_none() => {
                Err(knows_no_filters(&stream.leader.address))
            }
            Ok(answer) => {
                self.stream = Some(stream);
                Ok(answer)
            }
            Err(error) => {
                metadata.not_leader(&self.of, stream.leader.node_id, None);
                Err(error)
            }
        }
    }

    async fn open(&self) -> Result<FetchStream> {
        let leader = self.inner.leader(&self.of).await?;
        let mut node = self.inner.connections.node(&leader.address)?;
        let (requests, to_send) = mpsc::channel(1);
        let opened = timeout(ANSWER_WITHIN, node.fetch(ReceiverStream::new(to_send))).await;
        let opened = match opened {
            Ok(Ok(answers)) => Ok(answers.into_inner()),
            Ok(Err(status)) => Err(Error::from_status(&status, &leader.address)),
            Err(_) => Err(timed_out(&leader.address, ANSWER_WITHIN)),
        };
        match opened {
            Ok(answers) => Ok(FetchStream {
                leader,
                requests,
                answers,
                last_id: 0,
            }),
            Err(error) => {
                self.inner
                    .metadata
                    .not_leader(&self.of, leader.node_id, None);
                Err(error)
            }
        }
    }

    /// Handles a failure: another try, another offset, or the end.
    async fn after(&mut self, error: Error) -> Result<()> {
        if error.code() == Some(ErrorCode::OffsetOutOfRange) {
            return self.out_of_range(error).await;
        }
        if self.may_pass(&error) {
            return self.pass(error).await;
        }
        let now = Instant::now();
        let since = *self.failing_since.get_or_insert(now);
        let pause = self.backoff.pause();
        if error.code() == Some(ErrorCode::TopicRecreated) {
            self.inner.metadata.recreated(&self.of);
        }
        let is_final = !error.is_retryable();
        if is_final || now + pause > since + self.unavailable_timeout {
            let error = match is_final {
                true => error,
                false => self.failed.add(error),
            };
            let what = format!("reading {} at offset {}", self.of, self.next);
            return Err(error.context(what).with_outcome_unknown(false));
        }
        tracing::debug!(partition = %self.of, %error, "a fetch failed");
        self.failed.add(error);
        sleep(pause).await;
        self.next += u64::from(is_planted(PlantedBug::ReaderSkips));
        Ok(())
    }

    /// Returns true if the next records can't be filtered, and the policy allows skipping them.
    fn may_pass(&self, error: &Error) -> bool {
        let unreadable = matches!(
            error.code(),
            Some(ErrorCode::CorruptBatch | ErrorCode::FilterTooCostly)
        );
        unreadable && !self.filter.is_empty() && self.skips.policy == OnUnreadable::Skip
    }

    /// Skips a batch that can't be filtered, or one record of it. A fetch without the filter shows its end.
    async fn pass(&mut self, error: Error) -> Result<()> {
        let fetched = match self.fetch(String::new(), 1).await {
            Ok(answer) => answer.batches.into_iter(),
            Err(error) if error.is_retryable() => {
                sleep(self.backoff.pause()).await;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut ahead = fetched.filter(|batch| end_offset(batch) > self.next);
        let Some(batch) = ahead.next() else {
            return Ok(());
        };
        let view = BatchView::trusted(batch.batch.clone());
        let whole = view.and_then(|view| view.check_crc().map(|()| view));
        let view = whole.map_err(|why| corrupt(&self.of, self.next, &why))?;
        let costly = error.code() == Some(ErrorCode::FilterTooCostly);
        let record = costly.then(|| record_from(&batch, &view, self.next));
        let next_offset = match record.flatten() {
            Some(offset) => offset.saturating_add(1),
            None => end_offset(&batch),
        };
        self.skips.report(&Skipped {
            topic: self.of.topic.to_string(),
            partition: self.of.partition,
            offset: self.next,
            next_offset,
            error,
        });
        self.next = next_offset;
        Ok(())
    }

    /// Handles an offset outside of the log: retention trimmed it, or the log lost it.
    async fn out_of_range(&mut self, error: Error) -> Result<()> {
        let place = self.inner.place(self.of.clone(), Offset::Beginning);
        let (_, beginning) = place.await?;
        if self.next >= beginning {
            return Err(Error::new(
                ErrorKind::Truncated,
                format!(
                    "offset {} of {} is past the end of the log ({error}); seek to an offset there is",
                    self.next, self.of
                ),
            ));
        }
        match self.trimmed {
            OnTrimmed::SkipToBeginning => {
                self.next = beginning;
                Ok(())
            }
            OnTrimmed::Fail => Err(Error::new(
                ErrorKind::Trimmed,
                format!(
                    "offset {} of {} was trimmed by retention, the log begins at {beginning}; begin there",
                    self.next, self.of
                ),
            )),
        }
    }
}

impl FetchStream {
    async fn exchange(&mut self, request: v1::FetchRequest) -> Result<v1::FetchResponse> {
        let request_id = request.request_id;
        self.last_id = request_id;
        if self.requests.send(request).await.is_err() {
            return Err(self.ended());
        }
        loop {
            match self.answers.message().await {
                Ok(Some(answer)) if answer.request_id == request_id => return Ok(answer),
                Ok(Some(_)) => {}
                Ok(None) => return Err(self.ended()),
                Err(status) => return Err(Error::from_status(&status, &self.leader.address)),
            }
        }
    }

    fn ended(&self) -> Error {
        Error::new(
            ErrorKind::Unreachable,
            format!(
                "{} ended the stream, as it does when it stops",
                self.leader.address
            ),
        )
    }
}

/// The offset of the first record from `next` on.
fn record_from(batch: &v1::FetchedBatch, view: &BatchView, next: u64) -> Option<u64> {
    let records = view.iter_records(UNPACKED_BYTES).ok()?;
    let offset = |delta: i32| {
        batch
            .base_offset
            .saturating_add(delta.unsigned_abs().into())
    };
    let mut offsets = records.map_while(|record| Some(offset(record.ok()?.offset_delta)));
    offsets.find(|offset| *offset >= next)
}

fn knows_no_filters(address: &str) -> Error {
    Error::new(
        ErrorKind::Cluster(ErrorCode::UnsupportedVersion),
        format!(
            "{address} is of a version that knows no filters, and sent everything; upgrade it, or read without a filter"
        ),
    )
}
