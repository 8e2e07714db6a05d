//! The bytes of answers: counted against the node's room until they are written.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::poll_fn;
use http_body::{Body as _, Frame};
use ropewalk_proto::error::{ErrorCode, WireError};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Response;

use super::request::Kept;
use super::room::{Outbox, Room, bind};
use crate::env::{Call, Remote};

/// Place of one call among all calls in flight.
pub(super) type Place = (OwnedSemaphorePermit, Option<Call>);

/// Answers of a stream.
pub(super) struct Streamed {
    body: Body,
    outbox: Outbox,
    _place: Place,
}

impl Streamed {
    pub fn new(body: Body, outbox: Outbox, place: Place) -> Streamed {
        Streamed {
            body,
            outbox,
            _place: place,
        }
    }
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        frame.map_ok(|frame| frame.map_data(|bytes| self.outbox.bind(bytes)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Answer of a unary call, encoded.
struct Whole {
    frames: VecDeque<Frame<Bytes>>,
    /// `None` if the answer's bytes own it.
    _place: Option<Place>,
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.frames.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }
}

/// Encodes the answer of a unary call, and takes room for it until it is written.
pub(super) async fn whole<'a>(
    response: Response<Body>,
    room: impl Fn(usize) -> &'a Room,
    remote: Option<Remote>,
    place: Place,
    asked: Kept,
) -> Response<Body> {
    let (head, mut body) = response.into_parts();
    let mut frames = VecDeque::new();
    let mut bytes = 0;
    let mut place = Some(place);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame {
            Ok(frame) => {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                frames.push_back(frame);
            }
            Err(status) => return status.into_http(),
        }
    }
    // The call is answered, and its request is no longer needed.
    drop(asked);
    if bytes > 0 {
        let held = match room(bytes).hold(bytes, remote).await {
            // The call keeps its place until the last byte of the answer is written.
            Ok(held) => Arc::new((held, place.take())),
            // The call is already carried out, so the refusal must not promise that it is not.
            Err(error) => {
                let why = format!(
                    "call may have been carried out, but its answer was dropped: {}",
                    error.message
                );
                return Status::from(WireError::new(ErrorCode::Timeout, why)).into_http();
            }
        };
        let bound = |frame: Frame<Bytes>| frame.map_data(|data| bind(data, held.clone()));
        frames = frames.into_iter().map(bound).collect();
    }
    let whole = Whole {
        frames,
        _place: place,
    };
    Response::from_parts(head, Body::new(whole))
}
