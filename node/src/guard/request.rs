//! The bytes of requests as they arrive. The guard checks them against the bounds of their call before
//! anything decodes them. It charges them to the node until the call no longer needs them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body::Frame;
use parking_lot::Mutex;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::shape::Shape;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

use super::charges::Charges;
use super::walk::{Stop, Walk};

/// Bytes before each message: a compression flag and the length.
const HEAD_BYTES: usize = 5;
/// Largest message that counts as small: metadata, a heartbeat, or a few records.
const SMALL_BYTES: usize = 16 << 10;
/// Time within which a message must be complete once it goes on without room.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// Bounds of the requests of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Maximum bytes of one message.
    pub bytes: usize,
    /// Maximum fields of one message, nested messages included.
    pub fields: usize,
    pub shape: Option<Shape>,
    /// Time within which a message must arrive.
    pub within: Duration,
    /// True for a call with one request message. Its time runs from the start of the call.
    pub is_unary: bool,
}

/// Charges of a unary call, kept until it is answered.
pub(super) type Kept = Arc<Mutex<Option<Charges>>>;

/// Body of a request.
pub(super) struct Inspected {
    body: Body,
    bounds: Bounds,
    head: Vec<u8>,
    /// Message in progress.
    walk: Option<Walk>,
    /// Number of messages whose heads were complete.
    begun: u64,
    /// The message that has or had the turn to go on without room.
    turn_of: u64,
    charged: Option<Charges>,
    /// Bytes that have arrived and found no room yet.
    next: Option<Bytes>,
    /// True if they belong to small messages only.
    is_small: bool,
    until: Instant,
    late: Pin<Box<Sleep>>,
    kept: Kept,
}

impl Inspected {
    pub fn new(body: Body, bounds: Bounds, charges: Charges, kept: Kept) -> Inspected {
        Inspected {
            body,
            bounds,
            head: Vec::with_capacity(HEAD_BYTES),
            walk: None,
            begun: 0,
            turn_of: 0,
            charged: Some(charges),
            next: None,
            is_small: true,
            until: Instant::now() + bounds.within,
            late: Box::pin(sleep(bounds.within)),
            kept,
        }
    }

    /// Bytes of the incomplete message.
    fn unfinished(&self) -> usize {
        let taken = self.walk.as_ref().map_or(0, Walk::taken);
        self.head.len() + usize::try_from(taken).unwrap_or(usize::MAX)
    }

    /// Releases the charge for complete messages: a reader that asks for more has taken them.
    fn settle(&mut self) {
        let unfinished = self.unfinished();
        let Some(charged) = &mut self.charged else {
            return;
        };
        match self.bounds.is_unary {
            false => {
                charged.settle(unfinished);
                if self.begun != self.turn_of {
                    charged.end_turn();
                }
            }
            // The message is charged until it is answered; this poll only looks for the end of the body.
            true if unfinished == 0 => charged.end_turn(),
            true => {}
        }
    }

    fn inspect(&mut self, mut bytes: &[u8]) -> Result<(), WireError> {
        let walk = self.walk.as_ref();
        self.is_small = walk.is_none_or(|walk| walk.taken() + walk.left() <= SMALL_BYTES as u64);
        while !bytes.is_empty() {
            match &mut self.walk {
                None => {
                    let missing = HEAD_BYTES.saturating_sub(self.head.len()).min(bytes.len());
                    let (head, rest) = bytes.split_at(missing);
                    if self.head.is_empty() && !self.bounds.is_unary {
                        self.until = Instant::now() + self.bounds.within;
                    }
                    self.head.extend_from_slice(head);
                    bytes = rest;
                    self.begin()?;
                }
                Some(walk) => {
                    let left = usize::try_from(walk.left()).unwrap_or(usize::MAX);
                    let (now, rest) = bytes.split_at(left.min(bytes.len()));
                    walk.take(now).map_err(|stop| self.bounds.refuse(stop))?;
                    bytes = rest;
                    if walk.left() == 0 {
                        self.walk = None;
                    }
                }
            }
        }
        Ok(())
    }

    /// Begins a message once its head is complete.
    fn begin(&mut self) -> Result<(), WireError> {
        let Some([packed, length @ ..]) = self.head.first_chunk::<HEAD_BYTES>() else {
            return Ok(());
        };
        let bytes = u32::from_be_bytes(*length) as usize;
        if self.bounds.is_unary && self.begun > 0 {
            return Err(WireError::new(
                ErrorCode::InvalidRequest,
                "call accepts one message and got a second; check the client",
            ));
        }
        self.begun += 1;
        self.is_small &= bytes <= SMALL_BYTES;
        if bytes > self.bounds.bytes {
            return Err(WireError::new(
                ErrorCode::TooLarge,
                format!(
                    "request of {bytes} bytes is too large: this call accepts {} at most; send \
                     less at a time",
                    self.bounds.bytes
                ),
            ));
        }
        // The decoder refuses compressed messages.
        let shape = self.bounds.shape.filter(|_| *packed == 0);
        self.walk = (bytes > 0).then(|| Walk::new(shape, bytes as u64, self.bounds.fields));
        self.head.clear();
        Ok(())
    }

    /// Takes room for the bytes that have arrived. If there is none, a message that already holds some may go
    /// on without, one at a time. So incomplete messages never wait for each other.
    fn has_room(&mut self, cx: &mut Context<'_>) -> bool {
        let bytes = self.next.as_ref().map_or(0, Bytes::len);
        let Some(charged) = &mut self.charged else {
            return true;
        };
        let had_turn = charged.has_turn();
        if charged.poll_take(cx, bytes, self.is_small).is_pending() {
            return false;
        }
        if charged.has_turn() && !had_turn {
            self.turn_of = self.begun;
            self.until = self.until.min(Instant::now() + TURN_WITHIN);
            self.late.as_mut().reset(self.until);
        }
        true
    }

    fn is_waited_for(&self) -> bool {
        self.next.is_some() || self.bounds.is_unary || self.unfinished() > 0
    }

    /// Reports that nothing has arrived yet, or an error if that took too long.
    fn unless_late(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.is_waited_for() {
            return Poll::Pending;
        }
        while self.late.poll_unpin(cx).is_ready() {
            if self.until > Instant::now() {
                self.late.as_mut().reset(self.until);
                continue;
            }
            let error = WireError::new(
                ErrorCode::Overloaded,
                format!(
                    "request was not complete within {:?}; send it faster, or try again",
                    self.bounds.within
                ),
            );
            return Poll::Ready(Some(Err(error.into())));
        }
        Poll::Pending
    }
}

impl Bounds {
    fn refuse(&self, stop: Stop) -> WireError {
        let why = match stop {
            Stop::TooManyFields => format!(
                "request has more than {} fields, the limit of this call; ask for less at a time",
                self.fields
            ),
            Stop::Malformed => "request cannot be decoded; check the client".to_owned(),
        };
        WireError::new(ErrorCode::InvalidRequest, why)
    }
}

impl http_body::Body for Inspected {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.next.is_none() {
            this.settle();
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
                return this.unless_late(cx);
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) => {
                    this.inspect(&data)?;
                    this.next = Some(data);
                }
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
        if !this.has_room(cx) {
            return this.unless_late(cx);
        }
        let data = this.next.take().unwrap_or_default();
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.body.is_end_stream()
    }
}

impl Drop for Inspected {
    fn drop(&mut self) {
        if self.bounds.is_unary {
            *self.kept.lock() = self.charged.take();
        }
    }
}
