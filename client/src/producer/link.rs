//! One produce stream to one node, shared by all partitions of a producer which that node leads.
//! Every request gets exactly one answer: the node's, or that the stream broke.

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

/// How long a node may take to accept the stream.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// What became of one request.
#[derive(Debug)]
pub(super) struct Answer {
    pub request_id: u64,
    /// An error inside the response, or that there is none.
    pub response: Result<v1::ProduceResponse>,
}

/// Where a lane hears its answers. Never more of them wait than the lane has batches in flight.
pub(super) type Answers = mpsc::UnboundedSender<Answer>;

/// One stream. The requests in it are those in flight, which the lanes bound in number and the
/// producer's memory in bytes.
#[derive(Debug)]
pub(super) struct Link {
    pub leader: Leader,
    requests: mpsc::UnboundedSender<v1::ProduceRequest>,
    /// Who waits for which answer; none once the stream broke.
    waiting: Mutex<Option<BTreeMap<u64, Answers>>>,
    next_id: Arc<AtomicU64>,
    broken: CancellationToken,
}

impl Link {
    fn open(
        leader: Leader,
        node: Node,
        next_id: Arc<AtomicU64>,
        stop: &CancellationToken,
    ) -> Arc<Link> {
        let (requests, to_send) = mpsc::unbounded_channel();
        let link = Arc::new(Link {
            leader,
            requests,
            waiting: Mutex::new(Some(BTreeMap::new())),
            next_id,
            broken: stop.child_token(),
        });
        tokio::spawn(carry(link.clone(), node, to_send));
        link
    }

    /// Sends a request. Its id; none if the stream is broken, and then nothing was sent.
    pub fn send(&self, mut request: v1::ProduceRequest, answers: &Answers) -> Option<u64> {
        let request_id = self.next_id.fetch_add(1, Ordering::Relaxed);
        request.request_id = request_id;
        let mut waiting = self.waiting.lock();
        waiting.as_mut()?.insert(request_id, answers.clone());
        // The receiver lives until the stream is broken, which the lock above keeps from happening.
        let _ = self.requests.send(request);
        Some(request_id)
    }

    pub fn is_broken(&self) -> bool {
        self.waiting.lock().is_none()
    }

    /// Gives the stream up: it no longer answers.
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

async fn carry(link: Arc<Link>, node: Node, requests: mpsc::UnboundedReceiver<v1::ProduceRequest>) {
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

/// Carries requests and answers until the stream breaks; returns why it did.
async fn exchange(
    link: &Link,
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

/// The streams of a producer, one a node.
#[derive(Debug, Default)]
pub(super) struct Links {
    by_node: Mutex<BTreeMap<u64, Arc<Link>>>,
    /// One count for all streams. A batch that was given up may be answered late, by a stream its lane
    /// has left since: that answer must not look like one to what the lane has sent elsewhere.
    next_id: Arc<AtomicU64>,
}

impl Links {
    /// The stream to a leader, opened if there is none that works.
    pub fn to(
        &self,
        leader: Leader,
        connections: &Connections,
        stop: &CancellationToken,
    ) -> Result<Arc<Link>> {
        let mut by_node = self.by_node.lock();
        by_node.retain(|_, link| !link.is_broken());
        if let Some(link) = by_node
            .get(&leader.node_id)
            .filter(|link| link.leader == leader)
        {
            return Ok(link.clone());
        }
        let node = connections.node(&leader.address)?;
        let link = Link::open(leader, node, self.next_id.clone(), stop);
        by_node.insert(link.leader.node_id, link.clone());
        Ok(link)
    }
}
