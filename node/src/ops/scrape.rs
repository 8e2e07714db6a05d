//! Responses to scrapes. A page is written at most once per interval and shared by all scrapers in it. A
//! bounded number of responses is sent at a time, each for a bounded time. So neither many scrapers nor slow
//! ones cost the node more than that, or block others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex as ShortMutex;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::OpsContext;
use super::collect::Collect;
use crate::metrics::Count;

/// Maximum age of a page that is served again.
const AS_OLD_AS: Duration = Duration::from_millis(500);
/// Maximum number of responses sent at a time.
const AT_ONCE: usize = 16;
/// Maximum time for a client to take a response. Prometheus's own timeout is as short.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);
/// Size of the pieces in which a response is sent.
const PIECE_BYTES: usize = 64 << 10;
/// The content type of the format.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The latest page, and the limit on responses in progress.
#[derive(Debug)]
pub(super) struct Scrapes {
    registry: Registry,
    last: Mutex<Option<(Instant, Bytes)>>,
    room: Arc<Semaphore>,
    refused: Arc<Count>,
}

impl Scrapes {
    pub(super) fn new(seen: Arc<OpsContext>) -> Scrapes {
        let refused: Arc<Count> = Arc::default();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Collect {
            seen,
            refused: refused.clone(),
        }));
        Scrapes {
            registry,
            last: Mutex::default(),
            room: Arc::new(Semaphore::new(AT_ONCE)),
            refused,
        }
    }

    /// The page, current or recent. Callers that arrive while it is written wait for it.
    async fn page(&self) -> Result<Bytes, std::fmt::Error> {
        let mut last = self.last.lock().await;
        if let Some((at, page)) = &*last
            && at.elapsed() < AS_OLD_AS
        {
            return Ok(page.clone());
        }
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        let page = Bytes::from(text);
        *last = Some((Instant::now(), page.clone()));
        Ok(page)
    }
}

pub(super) async fn metrics(State(scrapes): State<Arc<Scrapes>>) -> Response {
    let Ok(permit) = scrapes.room.clone().try_acquire_owned() else {
        scrapes.refused.one();
        let busy = format!(
            "scrapes are limited to {AT_ONCE} at a time, and all are in use; try again shortly\n"
        );
        return (StatusCode::SERVICE_UNAVAILABLE, busy).into_response();
    };
    match scrapes.page().await {
        Ok(page) => {
            let length = page.len();
            let body = Body::from_stream(pieces(page, permit));
            let headers = [
                (header::CONTENT_TYPE, FORMAT.to_owned()),
                (header::CONTENT_LENGTH, length.to_string()),
            ];
            (headers, body).into_response()
        }
        Err(_) => {
            let failed = "metrics could not be rendered, which is a bug; please report it\n";
            (StatusCode::INTERNAL_SERVER_ERROR, failed).into_response()
        }
    }
}

/// The rest of a response, and its permit; `None` once it took too long.
type Left = Arc<ShortMutex<Option<(Bytes, OwnedSemaphorePermit)>>>;

/// A page in pieces. The permit is held until the last piece is taken or the time is up.
fn pieces(
    page: Bytes,
    permit: OwnedSemaphorePermit,
) -> impl stream::Stream<Item = io::Result<Bytes>> + Send {
    let left: Left = Arc::new(ShortMutex::new(Some((page, permit))));
    // A stalled connection polls for no further pieces, so a separate task must check the time.
    let late = Arc::downgrade(&left);
    let late = AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::time::sleep(TAKEN_WITHIN).await;
        if let Some(left) = late.upgrade() {
            left.lock().take();
        }
    }));
    stream::unfold((left, late), |(left, late)| async move {
        let piece = match &mut *left.lock() {
            None => Err(io::ErrorKind::TimedOut.into()),
            Some((page, _)) if page.is_empty() => return None,
            Some((page, _)) => Ok(page.split_to(page.len().min(PIECE_BYTES))),
        };
        Some((piece, (left, late)))
    })
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_gives_its_place_to_another() {
        let room = Arc::new(Semaphore::new(1));
        let permit = room.clone().try_acquire_owned().unwrap();
        let page = Bytes::from(vec![b'x'; 3 * PIECE_BYTES]);
        let mut answer = std::pin::pin!(pieces(page, permit));
        let first = answer.next().await.unwrap().unwrap();
        assert_eq!(first.len(), PIECE_BYTES);
        assert_eq!(room.available_permits(), 0);
        tokio::time::sleep(TAKEN_WITHIN + Duration::from_millis(1)).await;
        assert_eq!(room.available_permits(), 1);
        let error = answer.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn an_answer_is_given_whole_and_in_pieces() {
        let room = Arc::new(Semaphore::new(1));
        let permit = room.clone().try_acquire_owned().unwrap();
        let page = Bytes::from(vec![b'x'; 2 * PIECE_BYTES + 1]);
        let taken: Vec<_> = pieces(page, permit).collect().await;
        let taken: Vec<usize> = taken
            .into_iter()
            .map(|piece| piece.unwrap().len())
            .collect();
        assert_eq!(taken, [PIECE_BYTES, PIECE_BYTES, 1]);
        assert_eq!(room.available_permits(), 1);
    }
}
