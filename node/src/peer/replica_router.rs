//! The replicas of this node, as targets of their peers' calls.
//!
//! Each replica has its own queue. So AppendEntries of one group are handled in order and never wait for
//! those of another group.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use openraft::EntryPayload;
use parking_lot::RwLock;
use ropewalk_proto::command::Command;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, ReplicaId};
use ropewalk_proto::v1::append_answer::Result as Answered;
use ropewalk_proto::v1::raft_server::RaftServer;
use ropewalk_proto::v1::{AppendAnswer, AppendCall, AppendResult};
use ropewalk_raft_store::types::Entry;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::coop::unconstrained;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::convert::{Malformed, append_from_wire, appended_to_wire};
use super::raft_handle::RaftHandle;
use super::service::RaftService;
use super::snapshot::Gathering;
use super::trace;
use super::{MESSAGE_BYTES, PIPELINE, REPLICA_QUEUE, call_timeout};
use crate::config::Limits;

/// The replicas of this node that peers can call.
#[derive(Clone)]
pub struct ReplicaRouter {
    shared: Arc<Shared>,
}

struct Shared {
    call_timeout: Duration,
    replicas: RwLock<BTreeMap<ReplicaId, Replica>>,
    refuse_appends: Arc<AtomicBool>,
    /// Checkpoints that arrive in parts.
    gathering: Gathering,
    stop: CancellationToken,
}

struct Replica {
    group: GroupId,
    raft: Arc<dyn RaftHandle>,
    queue: mpsc::Sender<Job>,
    /// The offset up to which the replica's answers report it as compacted.
    compacted_to: Arc<AtomicU64>,
    _worker: AbortOnDropHandle<()>,
}

/// One AppendEntries call and the reply to it.
pub(super) struct Job {
    pub(super) call: AppendCall,
    pub(super) reply: Reply,
}

/// The obligation to answer one call. It holds the call's room in the lane until the answer is sent. If it is
/// dropped, the answer is that the replica is gone.
pub(super) struct Reply {
    call_id: u64,
    answers: mpsc::Sender<Answer>,
    permits: Option<Permits>,
}

/// An answer to be sent, with the room it takes in the lane.
pub(super) struct Answer {
    pub(super) wire: AppendAnswer,
    _permits: Permits,
}

/// Room in a lane for one call and its bytes.
pub(super) struct Permits {
    pub(super) _call: OwnedSemaphorePermit,
    pub(super) _bytes: OwnedSemaphorePermit,
}

impl ReplicaRouter {
    /// An empty set of replicas.
    pub fn new(limits: &Limits) -> ReplicaRouter {
        ReplicaRouter {
            shared: Arc::new(Shared {
                call_timeout: call_timeout(limits),
                replicas: RwLock::default(),
                refuse_appends: Arc::default(),
                gathering: Gathering::new(limits.checkpoint_bytes, 2 * call_timeout(limits)),
                stop: CancellationToken::new(),
            }),
        }
    }

    /// Lets peers call `replica` of `group` until it is deregistered.
    pub fn register(&self, group: GroupId, replica: ReplicaId, raft: impl RaftHandle) {
        let raft: Arc<dyn RaftHandle> = Arc::new(raft);
        let (queue, jobs) = mpsc::channel(REPLICA_QUEUE);
        let compacted_to = Arc::<AtomicU64>::default();
        let worker = work(
            jobs,
            raft.clone(),
            compacted_to.clone(),
            self.shared.refuse_appends.clone(),
            self.shared.call_timeout,
        );
        let replica_here = Replica {
            group,
            raft,
            queue,
            compacted_to,
            _worker: AbortOnDropHandle::new(tokio::spawn(worker)),
        };
        self.shared.replicas.write().insert(replica, replica_here);
    }

    /// Stops calls to `replica`. Calls without an answer get an error.
    pub fn deregister(&self, replica: ReplicaId) {
        self.shared.replicas.write().remove(&replica);
    }

    /// Sets the offset that `replica` reports to its leader: compaction has nothing left to remove below it.
    pub fn compacted(&self, replica: ReplicaId, to_offset: u64) {
        if let Some(replica) = self.shared.replicas.read().get(&replica) {
            replica.compacted_to.store(to_offset, Ordering::Relaxed);
        }
    }

    fn compacted_to(&self, group: u64, replica: u64) -> u64 {
        let found = self.named(group, replica, |replica| {
            replica.compacted_to.load(Ordering::Relaxed)
        });
        found.unwrap_or(0)
    }

    /// While set, refuses new entries with records, since a full disk cannot store them. Heartbeats, votes
    /// and small entries continue. Trims are among them, and they free space.
    pub fn refuse_appends(&self, refuse: bool) {
        self.shared.refuse_appends.store(refuse, Ordering::Relaxed);
    }

    /// The gRPC service.
    pub fn service(&self) -> RaftServer<RaftService> {
        RaftServer::new(RaftService::new(self.clone()))
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    /// Ends the lanes that peers hold open. A server that shuts down would wait for them.
    pub fn close(&self) {
        self.shared.stop.cancel();
    }

    pub(super) fn gathering(&self) -> &Gathering {
        &self.shared.gathering
    }

    pub(super) fn stopped(&self) -> &CancellationToken {
        &self.shared.stop
    }

    /// The replica that a call names, if it is on this node.
    pub(super) fn find(&self, group: u64, replica: u64) -> Result<Arc<dyn RaftHandle>, WireError> {
        self.named(group, replica, |replica| replica.raft.clone())
    }

    /// Queues a call after the earlier calls for the same replica.
    pub(super) fn dispatch(&self, job: Job) {
        let (group, replica) = (job.call.group_id, job.call.to_replica_id);
        let queue = self.named(group, replica, |replica| replica.queue.clone());
        let queue = match queue {
            Ok(queue) => queue,
            Err(error) => return job.reply.send(Err(error)),
        };
        match queue.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => job.reply.send(Err(overloaded(group, replica))),
            Err(TrySendError::Closed(job)) => job.reply.send(Err(not_here(group, replica))),
        }
    }

    /// Answers a heartbeat without waiting for entries.
    pub(super) async fn heartbeat(&self, job: Job) {
        let Job { call, reply } = job;
        let entries = call.request.as_ref().map_or(0, |r| r.entries.len());
        let compacted_to = self.compacted_to(call.group_id, call.to_replica_id);
        let answer = match self.find(call.group_id, call.to_replica_id) {
            Ok(_) if entries > 0 => Err(Malformed("a heartbeat has entries".into()).into()),
            Ok(raft) => self.bounded(append(&*raft, call, false)).await,
            Err(error) => Err(error),
        };
        reply.send(told(answer, compacted_to));
    }

    /// A replica's answer, or an error if it takes too long: a replica that hangs must not fill the lanes
    /// that all replicas share.
    pub(super) async fn bounded<T>(
        &self,
        answer: impl Future<Output = Result<T, WireError>>,
    ) -> Result<T, WireError> {
        bounded(self.shared.call_timeout, answer).await
    }

    fn named<T>(
        &self,
        group: u64,
        replica: u64,
        take: impl FnOnce(&Replica) -> T,
    ) -> Result<T, WireError> {
        let replicas = self.shared.replicas.read();
        match replicas.get(&ReplicaId(replica)) {
            Some(found) if found.group == GroupId(group) => Ok(take(found)),
            _ => Err(not_here(group, replica)),
        }
    }
}

/// Passes one replica's calls to it in order, several at a time, and answers in order.
///
/// A call takes effect in the order of its first poll. It is polled with `unconstrained`: tokio's cooperative
/// budget could otherwise reorder the calls. A replica that gets entries out of order reports to its leader
/// that it has lost some.
async fn work(
    jobs: mpsc::Receiver<Job>,
    raft: Arc<dyn RaftHandle>,
    compacted_to: Arc<AtomicU64>,
    refuse: Arc<AtomicBool>,
    bound: Duration,
) {
    ReceiverStream::new(jobs)
        // The caller may be gone by now. A lane that broke sends again the entries that are missing.
        .filter(|job| std::future::ready(!job.reply.answers.is_closed()))
        .map(|Job { call, reply }| {
            let raft = raft.clone();
            let refuse = refuse.load(Ordering::Relaxed);
            unconstrained(
                async move { (bounded(bound, append(&*raft, call, refuse)).await, reply) },
            )
        })
        .buffered(PIPELINE)
        .for_each(|(answer, reply)| {
            reply.send(told(answer, compacted_to.load(Ordering::Relaxed)));
            std::future::ready(())
        })
        .await;
}

/// An answer with the offset up to which the replica is compacted.
fn told(answer: Result<AppendResult, WireError>, to: u64) -> Result<AppendResult, WireError> {
    answer.map(|result| AppendResult {
        compacted_to: to,
        ..result
    })
}

async fn bounded<T>(
    bound: Duration,
    answer: impl Future<Output = Result<T, WireError>>,
) -> Result<T, WireError> {
    timeout(bound, answer).await.unwrap_or_else(|_| {
        let why = format!("replica did not answer within {} ms", bound.as_millis());
        Err(WireError::new(ErrorCode::Timeout, why))
    })
}

async fn append(
    raft: &dyn RaftHandle,
    call: AppendCall,
    refuse: bool,
) -> Result<AppendResult, WireError> {
    let request = call
        .request
        .ok_or_else(|| Malformed("it has no request".into()))?;
    let _spans = trace::replicating(&request.entries);
    let request = append_from_wire(request)?;
    // A new leader probes its followers' logs by sending again entries that they may have already.
    let is_new = |entry: &Entry| {
        let last = raft.last_log_index();
        last.is_none_or(|last| entry.log_id.index > last)
    };
    let has_records = |entry: &Entry| {
        let EntryPayload::Normal(command) = &entry.payload else {
            return false;
        };
        matches!(command, Command::Append { .. } | Command::Compacted { .. })
    };
    if refuse && request.entries.iter().any(|e| has_records(e) && is_new(e)) {
        return Err(WireError::new(
            ErrorCode::DiskFull,
            "disk of this node is full: no entries are accepted until space is free again",
        ));
    }
    let prev = request.prev_log_id;
    let response = raft.append(request).await?;
    Ok(appended_to_wire(response, prev.as_ref()))
}

impl Reply {
    /// The obligation to answer `call_id` through `answers`, which has room for as many answers as there can
    /// be `permits`.
    pub(super) fn new(call_id: u64, answers: mpsc::Sender<Answer>, permits: Permits) -> Reply {
        Reply {
            call_id,
            answers,
            permits: Some(permits),
        }
    }

    fn send(mut self, result: Result<AppendResult, WireError>) {
        self.put(result);
    }

    fn put(&mut self, result: Result<AppendResult, WireError>) {
        let Some(permits) = self.permits.take() else {
            return; // already answered
        };
        let result = match result {
            Ok(result) => Answered::Appended(result),
            Err(error) => Answered::Error(error.into()),
        };
        // Fails only if the lane is gone, and the other side knows that.
        let _ = self.answers.try_send(Answer {
            wire: AppendAnswer {
                call_id: self.call_id,
                result: Some(result),
            },
            _permits: permits,
        });
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.put(Err(WireError::new(
            ErrorCode::NotServing,
            "replica was stopped on this node before it answered",
        )));
    }
}

fn not_here(group: u64, replica: u64) -> WireError {
    WireError::new(
        ErrorCode::NotServing,
        format!("replica {replica} of group {group} does not run on this node"),
    )
}

fn overloaded(group: u64, replica: u64) -> WireError {
    WireError::new(
        ErrorCode::Overloaded,
        format!(
            "replica {replica} of group {group} has {REPLICA_QUEUE} AppendEntries waiting, the \
             limit: send more slowly"
        ),
    )
}

impl From<Malformed> for WireError {
    fn from(error: Malformed) -> WireError {
        WireError::new(ErrorCode::InvalidRequest, error.to_string())
    }
}

impl fmt::Debug for ReplicaRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replicas = self.shared.replicas.read();
        f.debug_list().entries(replicas.keys()).finish()
    }
}

#[cfg(test)]
#[path = "replica_router_tests.rs"]
mod tests;
