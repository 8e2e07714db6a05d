//! Streams of batches from producers. Each batch is answered as it commits.

use std::pin::pin;

use futures_util::future::{Fuse, FusedFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use ropewalk_proto::v1;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{AnswerStream, Service};
use crate::metrics::Rpc;
use crate::partition::Appended;
use crate::service::{Api, Caller};

/// Serves one produce stream: one answer per request. At most `stream_inflight` requests are in flight. Past
/// that the stream is not read, and the client's own flow control holds it back.
pub(super) fn stream(
    service: Service,
    caller: Caller,
    requests: Streaming<v1::ProduceRequest>,
) -> AnswerStream<v1::ProduceResponse> {
    let (answers, receiver) = mpsc::channel(16);
    tokio::spawn(serve(service, caller, requests, answers));
    Box::pin(ReceiverStream::new(receiver))
}

async fn serve(
    service: Service,
    caller: Caller,
    mut requests: Streaming<v1::ProduceRequest>,
    answers: mpsc::Sender<Result<v1::ProduceResponse, Status>>,
) {
    let Ok(api) = service.availability.api(caller) else {
        return;
    };
    let metrics = &service.metrics;
    let mut waiting = FuturesUnordered::new();
    // One batch at a time, so that none overtakes another. Meanwhile earlier batches are answered.
    let mut beginning = pin!(Fuse::terminated());
    let mut open = true;
    let mut refused = None;
    while open || !beginning.is_terminated() || !waiting.is_empty() {
        let under_way = waiting.len() < api.limits().stream_inflight;
        let room = open && under_way && beginning.is_terminated();
        tokio::select! {
            request = requests.next(), if room => match request {
                Some(Ok(request)) => beginning.set(begin(&api, request).fuse()),
                Some(Err(status)) => (refused, open) = (Some(status), false),
                None => open = false,
            },
            answer = &mut beginning, if !beginning.is_terminated() => waiting.push(answer),
            // The producer is gone: a batch that is not proposed yet no longer has a receiver for its answer.
            () = answers.closed() => return,
            Some(answered) = waiting.next() => {
                let Answered { response, arrived, known } = answered;
                metrics.requests.answered(Rpc::Produce, super::code(&response.error));
                if answers.send(Ok(response)).await.is_err() {
                    return;
                }
                if let Some(known) = known {
                    metrics.stages.acknowledge.took(known.elapsed());
                    metrics.stages.whole.took(arrived.elapsed());
                }
            }
        }
    }
    if let Some(status) = refused {
        // All accepted requests are answered by now; this status is about the refused one.
        let _ = answers.send(Err(status)).await;
    }
}

/// An answer, with the times at which its batch arrived and was committed.
struct Answered {
    response: v1::ProduceResponse,
    arrived: Instant,
    /// `None` if the batch was not written.
    known: Option<Instant>,
}

/// Begins one batch, and returns its later answer.
async fn begin(api: &Api<'_>, request: v1::ProduceRequest) -> impl Future<Output = Answered> {
    let arrived = Instant::now();
    let request_id = request.request_id;
    let outcome = api.produce(request).await;
    async move {
        let outcome = outcome.await;
        let known = outcome.as_ref().ok().map(|appended| appended.known);
        let response = match outcome {
            Ok(appended) => answer(request_id, appended),
            Err(error) => v1::ProduceResponse {
                request_id,
                error: Some(error),
                ..Default::default()
            },
        };
        Answered {
            response,
            arrived,
            known,
        }
    }
}

fn answer(request_id: u64, appended: Appended) -> v1::ProduceResponse {
    v1::ProduceResponse {
        request_id,
        base_offset: appended.base_offset,
        leader_epoch: appended.epoch,
        duplicate: appended.duplicate,
        log_start_offset: appended.log_start_offset,
        error: None,
    }
}
