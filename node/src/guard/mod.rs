//! Bounds on the resources that callers can hold, around every service: calls in flight, the size of requests
//! and the number of their fields, incomplete requests, and unsent answers. The meaning of a call must not
//! come in here.

mod answer;
mod charge;
mod charges;
mod queue;
mod request;
mod room;
mod share;
mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::shape::Shape;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tower::Service;

use crate::config::Limits;
use crate::env::Remote;
use crate::metrics::Rpc;

use answer::{Place, Streamed};
use charge::Requests;
use charges::Rooms;
use request::{Bounds, Inspected, Kept};
pub use room::{Held, Outbox, Room};

/// Largest batch accepted at first. A topic that allows larger ones raises it.
const LEAST_BATCH_BYTES: usize = 4 << 20;
/// Room in a message for everything besides its batch or record.
const ENVELOPE_BYTES: usize = 64 << 10;
/// Largest message between nodes: a checkpoint with its envelope.
const PEER_BYTES: usize = 65 << 20;
/// Largest answer of a unary call that counts as small.
const SMALL_ANSWER_BYTES: usize = 64 << 10;
/// Largest part of a checkpoint, without its envelope.
const PART_BYTES: usize = 1 << 20;
/// Room for small answers of unary calls.
const SMALL_ANSWERS_BYTES: usize = 16 << 20;
/// Room for small requests of clients.
const SMALL_REQUESTS_BYTES: usize = 16 << 20;
/// Room for messages between nodes other than entries and snapshots.
const URGENT_BYTES: usize = PEER_BYTES + ENVELOPE_BYTES;
/// Fields of a message between nodes: enough for a report of all partitions that a node may lead.
const PEER_FIELDS: usize = 500_000;
/// Largest message of heartbeats, which hold no entries.
const HEARTBEAT_BYTES: usize = 4 << 20;
/// Fields of a message of heartbeats: enough for all heartbeats that are sent at a time.
const HEARTBEAT_FIELDS: usize = 2_048 * 64;

/// Bounds of one kind of caller, shared by all services it reaches.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    is_for_peers: bool,
    request_bytes: usize,
    request_fields: usize,
    within: Duration,
    /// Largest batch that any topic has allowed since this node started.
    batch_bytes: AtomicUsize,
    streams: Arc<Semaphore>,
    streams_per_address: usize,
    /// Room for requests.
    requests: Requests,
    /// Room for small requests of clients, which must not wait behind incomplete large ones.
    small_requests: Requests,
    /// Room for requests that must not wait behind entries and snapshots, such as heartbeats and votes.
    urgent: Requests,
    answers: Room,
    /// Room for small answers of unary calls, which must not wait behind unread records.
    small_answers: Room,
}

impl Guard {
    /// Bounds of clients. No topic can allow a batch above `largest_batch_bytes`.
    pub fn for_clients(limits: &Limits, largest_batch_bytes: usize) -> Guard {
        let largest = limits
            .request_bytes
            .max(largest_batch_bytes + ENVELOPE_BYTES);
        Guard::new(limits, false, largest)
    }

    /// Bounds of other nodes, separate so that clients cannot use them up.
    pub fn for_peers(limits: &Limits) -> Guard {
        Guard::new(limits, true, PEER_BYTES)
    }

    /// Creates bounds with room for at least one message of `largest` bytes, which would otherwise wait
    /// forever.
    fn new(limits: &Limits, is_for_peers: bool, largest: usize) -> Guard {
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(u32::MAX as usize >> 1)));
        let within = Duration::from_millis(limits.request_within_ms);
        let least = largest.saturating_add(ENVELOPE_BYTES);
        let room = |bytes: usize| Requests::new(bytes, within);
        Guard(Arc::new(Shared {
            is_for_peers,
            request_bytes: limits.request_bytes,
            request_fields: limits.request_fields,
            within,
            batch_bytes: AtomicUsize::new(LEAST_BATCH_BYTES),
            streams: permits(limits.streams),
            streams_per_address: limits.streams.div_ceil(2),
            requests: room(limits.request_inflight_bytes.max(least)),
            small_requests: room(SMALL_REQUESTS_BYTES),
            urgent: room(URGENT_BYTES),
            answers: Room::new(limits.answer_inflight_bytes),
            small_answers: Room::new(SMALL_ANSWERS_BYTES),
        }))
    }

    /// Accepts batches of this size from now on, because a topic allows them. The bound never shrinks: a
    /// producer may not know the topic's new limit yet, and then the topic itself must refuse the batch.
    pub fn allow_batches_of(&self, bytes: usize) {
        self.0.batch_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    /// Room for answers.
    pub fn answers(&self) -> &Room {
        &self.0.answers
    }

    fn room_for_answer(&self, bytes: usize) -> &Room {
        match bytes <= SMALL_ANSWER_BYTES {
            true => &self.0.small_answers,
            false => &self.0.answers,
        }
    }

    /// Wraps a service in these bounds.
    pub fn around<S>(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            guard: self.clone(),
        }
    }

    /// Admits one more call.
    fn admit(&self, remote: Option<&Remote>) -> Result<Place, WireError> {
        let full = |what: &str| {
            WireError::new(
                ErrorCode::Overloaded,
                format!("{what}; use fewer streams, or try again later"),
            )
        };
        let call = match remote {
            Some(remote) if self.0.is_for_peers => {
                remote.mark_peer();
                Some(remote.begin())
            }
            Some(remote) => {
                let call = remote.begin_within(self.0.streams_per_address);
                Some(call.ok_or_else(|| full("address has half of the node's streams open"))?)
            }
            None => None,
        };
        let streams = self.0.streams.clone().try_acquire_owned();
        let streams = streams.map_err(|_| full("node has all its streams open"))?;
        Ok((streams, call))
    }

    /// Returns the rooms that the requests of a call are charged to. Nodes may share an address, so
    /// no address has a share of their rooms.
    fn rooms(&self, path: &str) -> Rooms {
        let shared = &self.0;
        let bulk = ["/Append", "/InstallSnapshot", "/InstallSnapshotParts"];
        let is_bulk = bulk.iter().any(|call| path.ends_with(call));
        let (large, small) = match shared.is_for_peers {
            true if is_bulk => (&shared.requests, None),
            true => (&shared.urgent, None),
            false => (&shared.requests, Some(shared.small_requests.clone())),
        };
        Rooms {
            large: large.clone(),
            small,
            is_shared: !shared.is_for_peers,
        }
    }

    fn bounds(&self, path: &str, rpc: Option<Rpc>) -> Bounds {
        let shared = &self.0;
        let (bytes, fields) = match rpc {
            _ if shared.is_for_peers && path.ends_with("/Heartbeat") => {
                (HEARTBEAT_BYTES, HEARTBEAT_FIELDS)
            }
            _ if shared.is_for_peers && path.ends_with("/InstallSnapshotParts") => {
                (PART_BYTES + ENVELOPE_BYTES, PEER_FIELDS)
            }
            _ if shared.is_for_peers => (PEER_BYTES, PEER_FIELDS),
            Some(Rpc::Produce | Rpc::Publish) => {
                let batch = shared.batch_bytes.load(Ordering::Relaxed);
                (batch + ENVELOPE_BYTES, shared.request_fields)
            }
            _ => (shared.request_bytes, shared.request_fields),
        };
        Bounds {
            bytes,
            fields,
            shape: Shape::of_request(path),
            within: shared.within,
            is_unary: rpc.is_some_and(|rpc| !rpc.is_stream()),
        }
    }
}

/// A service within bounds.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    inner: S,
    guard: Guard,
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let guard = self.guard.clone();
        let remote = request.extensions().get::<Remote>().cloned();
        let place = match guard.admit(remote.as_ref()) {
            Ok(place) => place,
            Err(error) => return Box::pin(async { Ok(Status::from(error).into_http()) }),
        };
        let path = request.uri().path();
        let rpc = Rpc::of_path(path).filter(|_| !guard.0.is_for_peers);
        let bounds = guard.bounds(path, rpc);
        let charges = guard.rooms(path).charges(remote.as_ref());
        let (kept, outbox) = (Kept::default(), Outbox::default());
        request.extensions_mut().insert(outbox.clone());
        let within = kept.clone();
        let request = request.map(|body| Body::new(Inspected::new(body, bounds, charges, within)));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            if bounds.is_unary {
                let room = |bytes| guard.room_for_answer(bytes);
                return Ok(answer::whole(response, room, remote, place, kept).await);
            }
            Ok(response.map(|body| Body::new(Streamed::new(body, outbox, place))))
        })
    }
}

#[cfg(test)]
mod tests;
