//! One produce stream to one node, shared by all partitions of a producer that the node leads. Every request
//! gets exactly one answer: the node's, or the failure of the stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::v1;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::connections::{Connections, Node};
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::Leader;

/// Time limit for a node to accept the stream.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// Outcome of one request.
#[derive(Debug)]
pub(super) struct Answer {
    pub request_id: u64,
    /// The response, which may contain an error, or the failure of the stream.
    pub response: Result<v1::ProduceResponse>,
}

/// Channel for a lane's answers. It holds at most as many as the lane has batches in flight.
pub(super) type Answers = mpsc::UnboundedSender<Answer>;

/// One stream. Its requests are those in flight; the lanes bound their number, and the producer's memory
/// bounds their bytes.
#[derive(Debug)]
pub(super) struct ProduceStream {
    pub leader: Leader,
    requests: mpsc::UnboundedSender<v1::ProduceRequest>,
    /// Lanes that wait for an answer, by request id; none once the stream broke.
    waiting: Mutex<Option<BTreeMap<u64, Answers>>>,
    next_id: Arc<AtomicU64>,
    broken: CancellationToken,
}

impl ProduceStream {
    fn open(
        leader: Leader,
        node: Node,
        next_id: Arc<AtomicU64>,
        stop: &CancellationToken,
    ) -> Arc<ProduceStream> {
        let (requests, to_send) = mpsc::unbounded_channel();
        let link = Arc::new(ProduceStream {
            leader,
            requests,
            waiting: Mutex::new(Some(BTreeMap::new())),
            next_id,
            broken: stop.child_token(),
        });
        tokio::spawn(carry(link.clone(), node, to_send));
        link
    }

    /// Sends a request and returns its id; none if the stream is broken, and then nothing was sent.
    pub fn send(&self, mut request: v1::ProduceRequest, answers: &Answers) -> Option<u64> {
        let request_id = self.next_id.fetch_add(1, Ordering::Relaxed);
        request.request_id = request_id;
        let mut waiting = self.waiting.lock();
        waiting.as_mut()?.insert(request_id, answers.clone());
        // The receiver lives until the stream breaks, which the lock above prevents.
        let _ = self.requests.send(request);
        Some(request_id)
    }

    pub fn is_broken(&self) -> bool {
        self.waiting.lock().is_none()
    }

    /// Gives up the stream: it no longer answers.
    pub fn give_up(&self) {
        self.broken.cancel();
    }

    fn answer(&self, response: v1::ProduceResponse) {
        let request_id = response.request_id;
        let waiting = self
            .waiting
            .lock()
            .as_mut()
            .and_then(|waiting| waiting.remove(&request_id));
        if let Some(answers) = waiting {
            let response = Ok(response);
            // The lane may have ended meanwhile.
            let _ = answers.send(Answer {
                request_id,
                response,
            });
        }
    }

    fn fail(&self, error: &Error) {
        let waiting = self.waiting.lock().take();
        for (request_id, answers) in waiting.into_iter().flatten() {
            let response = Err(error.clone());
            let _ = answers.send(Answer {
                request_id,
                response,
            });
        }
    }
}

async fn carry(
    link: Arc<ProduceStream>,
    node: Node,
    requests: mpsc::UnboundedReceiver<v1::ProduceRequest>,
) {
    let error = tokio::select! {
        error = exchange(&link, node, requests) => error,
        () = link.broken.cancelled() => Error::new(
            ErrorKind::Timeout,
            format!("{} did not answer in time", link.leader.address),
        )
        .with_outcome_unknown(true),
    };
    link.fail(&error);
}

/// Carries requests and answers until the stream breaks; returns the reason.
async fn exchange(
    link: &ProduceStream,
    mut node: Node,
    requests: mpsc::UnboundedReceiver<v1::ProduceRequest>,
) -> Error {
    let address = &link.leader.address;
    let opened = timeout(
        OPEN_WITHIN,
        node.produce(UnboundedReceiverStream::new(requests)),
    )
    .await;
    let mut responses = match opened {
        Ok(Ok(responses)) => responses.into_inner(),
        Ok(Err(status)) => return Error::from_status(&status, address),
        Err(_) => return crate::client::timed_out(address, OPEN_WITHIN),
    };
    loop {
        match responses.message().await {
            Ok(Some(response)) => link.answer(response),
            Ok(None) => {
                return Error::new(
                    ErrorKind::Cluster(ErrorCode::LeadershipLost),
                    format!("{address} ended the stream, as it does when it stops"),
                );
            }
            Err(status) => return Error::from_status(&status, address),
        }
    }
}

/// The streams of a producer, one per node.
#[derive(Debug, Default)]
pub(super) struct ProduceStreams {
    by_node: Mutex<BTreeMap<u64, Arc<ProduceStream>>>,
    /// Counter of request ids, shared by all streams. A late answer on an abandoned stream must not match a
    /// request on the lane's new stream.
    next_id: Arc<AtomicU64>,
}

impl ProduceStreams {
    /// The stream to a leader; opens one if there is none or it broke.
    pub fn to(
        &self,
        leader: Leader,
        connections: &Connections,
        stop: &CancellationToken,
    ) -> Result<Arc<ProduceStream>> {
        let mut by_node = self.by_node.lock();
        by_node.retain(|_, link| !link.is_broken());
        if let Some(link) = by_node
            .get(&leader.node_id)
            .filter(|link| link.leader == leader)
        {
            return Ok(link.clone());
        }
        let node = connections.node(&leader.address)?;
        let link = ProduceStream::open(leader, node, self.next_id.clone(), stop);
        by_node.insert(link.leader.node_id, link.clone());
        Ok(link)
    }
}
