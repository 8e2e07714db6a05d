//! Answers to scrapes. A page is written at most once in a while and given to everybody who asks
//! meanwhile, and so many are on their way at a time: neither many scrapers nor slow ones cost the node
//! more than that.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Seen;
use super::collect::Collect;
use crate::metrics::Count;

/// How old a page may be that is given once more.
const AS_OLD_AS: Duration = Duration::from_millis(500);
/// Answers on their way at a time.
const AT_ONCE: usize = 16;
/// What is given to a connection in one piece.
const PIECE_BYTES: usize = 64 << 10;
/// The format, as the field names it.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Pages, and who is being given one.
#[derive(Debug)]
pub(super) struct Scrapes {
    registry: Registry,
    last: Mutex<Option<(Instant, Bytes)>>,
    room: Arc<Semaphore>,
    refused: Arc<Count>,
}

impl Scrapes {
    pub(super) fn new(seen: Arc<Seen>) -> Scrapes {
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

    /// The page, as it is or as it was a moment ago. Who comes while one is written waits for it.
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
        let busy = format!("{AT_ONCE} scrapes are being answered already; try again shortly\n");
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
            let failed = "the metrics could not be written, which is a bug; please report it\n";
            (StatusCode::INTERNAL_SERVER_ERROR, failed).into_response()
        }
    }
}

/// A page in pieces. The permit is held until the last of them was taken.
fn pieces(
    page: Bytes,
    permit: OwnedSemaphorePermit,
) -> impl stream::Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::unfold((page, permit), |(mut left, permit)| async move {
        if left.is_empty() {
            return None;
        }
        let piece = left.split_to(left.len().min(PIECE_BYTES));
        Some((Ok(piece), (left, permit)))
    })
}
