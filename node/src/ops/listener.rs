//! HTTP over the seam's sockets. A request must arrive within a bounded time. Its connection counts as in use
//! until the answer.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming as RequestBody;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::env::{Accepted, Incoming};

/// Maximum size of a request's head.
const HEAD_BYTES: usize = 16 << 10;

/// Serves requests until `stop`, then finishes those in progress.
pub(super) async fn serve(
    mut incoming: Incoming,
    router: Router,
    head_within: Duration,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let (accepted, from) = tokio::select! {
            next = incoming.next() => next,
            () = stop.cancelled() => break,
        };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            if let Err(error) = connection(accepted, router, head_within, stop).await {
                tracing::debug!(from, %error, "HTTP connection closed");
            }
        });
    }
    drop(incoming);
    connections.close();
    connections.wait().await;
}

async fn connection(
    accepted: Accepted,
    router: Router,
    head_within: Duration,
    stop: CancellationToken,
) -> hyper::Result<()> {
    let caller = accepted.remote();
    let service = service_fn(move |request: hyper::Request<RequestBody>| {
        let call = caller.begin();
        let answering = router.clone().oneshot(request.map(Body::new));
        async move {
            let answer = answering.await;
            drop(call);
            answer
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_within)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(accepted), service);
    tokio::pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => return ended,
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    serving.await
}
