//! Batches for readers, and offset lookups by position and time.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ropewalk_proto::batch::BatchView;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::list_offsets_request::Position as Asked;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::filtered::{self, LastFilter};
use super::{AnswerStream, Service, stream_error};
use crate::env::Remote;
use crate::filter::Origin;
use crate::guard::{Held, Outbox, Room};
use crate::metrics::Rpc;
use crate::partition::{FetchSpec, Fetched, LEAST_READ_BYTES, Partition, Position};
use crate::service::Serving;

/// Fetches in flight on one stream. Each holds at most `fetch_bytes` of memory.
const STREAM_FETCHES: usize = 64;

/// An answer, and the room that it holds until it is sent.
type Answer = (Result<v1::FetchResponse, Status>, Option<Held>);

/// Serves one fetch stream: one answer per request, each as soon as it is ready.
pub(super) fn stream(
    service: Service,
    request: Request<Streaming<v1::FetchRequest>>,
) -> AnswerStream<v1::FetchResponse> {
    let (answers, receiver) = mpsc::channel(1);
    let caller = request.extensions().get::<Remote>().cloned();
    let outbox = request.extensions().get::<Outbox>().cloned();
    let outbox = outbox.unwrap_or_default();
    tokio::spawn(serve(service, request.into_inner(), caller, answers));
    let answers = ReceiverStream::new(receiver);
    Box::pin(answers.map(move |(answer, held): Answer| {
        if let Some(held) = held {
            outbox.push(held);
        }
        answer
    }))
}

async fn serve(
    service: Service,
    mut requests: Streaming<v1::FetchRequest>,
    caller: Option<Remote>,
    answers: mpsc::Sender<Answer>,
) {
    let Ok(serving) = service.serving() else {
        return;
    };
    let last = LastFilter::default();
    let mut waiting = FuturesUnordered::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        tokio::select! {
            request = requests.next(), if open && waiting.len() < STREAM_FETCHES => match request {
                Some(Ok(request)) => {
                    let room = (service.guard.answers(), caller.clone());
                    waiting.push(fetch(serving, room, &last, request));
                }
                // The reader is gone, or sent a refused message: the answers of waiting fetches no longer
                // have a receiver.
                Some(Err(status)) => {
                    let _ = answers.send((Err(status), None)).await;
                    return;
                }
                // The reader asks for nothing more, but still waits for its answers.
                None => open = false,
            },
            Some(answer) = waiting.next() => {
                let (answer, held): (v1::FetchResponse, _) = answer;
                let code = super::code(&answer.error);
                service.metrics.requests.answered(Rpc::Fetch, code);
                if answers.send((Ok(answer), held)).await.is_err() {
                    return;
                }
            }
            () = answers.closed() => return,
        }
    }
}

async fn fetch(
    serving: &Serving,
    room: (&Room, Option<Remote>),
    last: &LastFilter,
    request: v1::FetchRequest,
) -> (v1::FetchResponse, Option<Held>) {
    let request_id = request.request_id;
    match try_fetch(serving, room, last, &request).await {
        Ok((answer, held)) => (answer, held),
        Err(error) => {
            let error = stream_error(serving, &request.topic, request.partition, error);
            let answer = v1::FetchResponse {
                request_id,
                error: Some(error),
                ..Default::default()
            };
            (answer, None)
        }
    }
}

/// Counts the records and bytes that a reader gets.
fn count(partition: &Partition, fetched: &Fetched) {
    let (mut records, mut bytes) = (0, 0);
    for (.., batch) in &fetched.batches {
        bytes += batch.len() as u64;
        // Only the header of a batch is read.
        let count = BatchView::trusted(batch.clone()).map_or(0, |batch| batch.record_count());
        records += u64::from(count.unsigned_abs());
    }
    let traffic = partition.traffic();
    traffic.fetched_records.add(records);
    traffic.fetched_bytes.add(bytes);
}

async fn try_fetch(
    serving: &Serving,
    (room, caller): (&Room, Option<Remote>),
    last: &LastFilter,
    request: &v1::FetchRequest,
) -> Result<(v1::FetchResponse, Option<Held>), WireError> {
    let partition = serving.local(&request.topic, request.topic_id, request.partition)?;
    let filter = last.get(&request.filter)?;
    let max_wait_ms = u64::from(request.max_wait_ms).min(serving.limits.fetch_wait_ms);
    let spec = FetchSpec {
        offset: request.offset,
        max_bytes: (request.max_bytes as usize).min(serving.limits.fetch_bytes),
        max_wait: Duration::from_millis(max_wait_ms),
        last_epoch: request.leader_epoch,
    };
    // One batch is returned even if it is larger.
    let batch_bytes = serving.batch_bytes(&request.topic);
    let bytes = spec.max_bytes.max(LEAST_READ_BYTES).max(batch_bytes);
    let hold = || room.hold(bytes, caller.clone());
    let (mut fetched, mut held) = partition.fetch_held(spec, hold).await?;
    let next_offset = match &filter {
        Some(filter) => {
            let origin = Origin {
                topic: &request.topic,
                partition: request.partition,
            };
            let from = request.offset;
            Some(filtered::apply(serving, filter, origin, from, &mut fetched).await?)
        }
        None => None,
    };
    count(&partition, &fetched);
    if let Some(held) = &mut held {
        held.shrink(fetched.batches.iter().map(|(.., batch)| batch.len()).sum());
    }
    let batches = fetched
        .batches
        .into_iter()
        .map(|(base_offset, leader_epoch, batch)| v1::FetchedBatch {
            base_offset,
            leader_epoch,
            batch,
        });
    let answer = v1::FetchResponse {
        request_id: request.request_id,
        batches: batches.collect(),
        high_watermark: fetched.high_watermark,
        log_start_offset: fetched.log_start_offset,
        leader_epoch: fetched.epoch,
        error: None,
        next_offset,
    };
    Ok((answer, held))
}

pub(super) async fn list_offsets(
    serving: &Serving,
    request: v1::ListOffsetsRequest,
) -> Result<v1::ListOffsetsResponse, WireError> {
    let position = match request.position {
        Some(Asked::Beginning(_)) => Position::Beginning,
        Some(Asked::End(_)) => Position::End,
        Some(Asked::AtOrAfterMs(time_ms)) => Position::AtOrAfter(time_ms),
        None => {
            return Err(WireError::new(
                ErrorCode::InvalidRequest,
                "no position given; ask for the beginning, the end, or a time",
            ));
        }
    };
    let partition = serving.local(&request.topic, request.topic_id, request.partition)?;
    let found = partition.list_offset(position).await?;
    Ok(v1::ListOffsetsResponse {
        offset: found.offset,
        timestamp_ms: found.timestamp_ms,
        leader_epoch: found.epoch,
    })
}
