//! Streams of batches for readers. Each fetch is answered as soon as its batches are read.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ropewalk_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::{AnswerStream, Service};
use crate::env::Remote;
use crate::guard::{Held, Outbox};
use crate::metrics::Rpc;
use crate::service::{AnswerRoom, Api, Batches, Caller, LastFilter};

/// Fetches in flight on one stream. Each holds at most `fetch_bytes` of memory.
const STREAM_FETCHES: usize = 64;

/// An answer, and the room that it holds until it is sent.
type Answer = (Result<v1::FetchResponse, Status>, Option<Held>);

/// Serves one fetch stream: one answer per request, each as soon as it is ready.
pub(super) fn stream(
    service: Service,
    caller: Caller,
    request: Request<Streaming<v1::FetchRequest>>,
) -> AnswerStream<v1::FetchResponse> {
    let (answers, receiver) = mpsc::channel(1);
    let remote = request.extensions().get::<Remote>().cloned();
    let outbox = request.extensions().get::<Outbox>().cloned();
    let outbox = outbox.unwrap_or_default();
    let requests = request.into_inner();
    tokio::spawn(serve(service, (caller, remote), requests, answers));
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
    (caller, remote): (Caller, Option<Remote>),
    mut requests: Streaming<v1::FetchRequest>,
    answers: mpsc::Sender<Answer>,
) {
    let Ok(api) = service.availability.api(caller) else {
        return;
    };
    let room = service.guard.answers();
    let last = LastFilter::default();
    let mut waiting = FuturesUnordered::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        tokio::select! {
            request = requests.next(), if open && waiting.len() < STREAM_FETCHES => match request {
                Some(Ok(request)) => {
                    let remote = remote.clone();
                    waiting.push(fetch(&api, AnswerRoom { room, remote }, &last, request));
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
    api: &Api<'_>,
    room: AnswerRoom<'_>,
    last: &LastFilter,
    request: v1::FetchRequest,
) -> (v1::FetchResponse, Option<Held>) {
    let request_id = request.request_id;
    match api.fetch(&request, last, room).await {
        Ok(batches) => answer(request_id, batches),
        Err(error) => {
            let answer = v1::FetchResponse {
                request_id,
                error: Some(error),
                ..Default::default()
            };
            (answer, None)
        }
    }
}

fn answer(request_id: u64, batches: Batches) -> (v1::FetchResponse, Option<Held>) {
    let fetched = batches.fetched;
    let of_answer = fetched
        .batches
        .into_iter()
        .map(|(base_offset, leader_epoch, batch)| v1::FetchedBatch {
            base_offset,
            leader_epoch,
            batch,
        });
    let answer = v1::FetchResponse {
        request_id,
        batches: of_answer.collect(),
        high_watermark: fetched.high_watermark,
        log_start_offset: fetched.log_start_offset,
        leader_epoch: fetched.epoch,
        error: None,
        next_offset: batches.next_offset,
    };
    (answer, batches.held)
}
