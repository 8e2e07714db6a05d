//! The gRPC service for peers: accepts calls within bounds and passes them on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::{BoxStream, Stream, StreamExt};
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use prost::Message;
use ropewalk_proto::error::WireError;
use ropewalk_proto::ids::ReplicaId;
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use ropewalk_proto::v1;
use ropewalk_proto::v1::raft_server::Raft;
use ropewalk_raft_store::convert::LARGEST_TERM;
use ropewalk_raft_store::types::LogId;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

use super::coalesce::gather;
use super::convert::{
    log_id_from_wire, log_id_to_wire, snapshot_meta_from_wire, vote_from_wire, vote_to_wire,
};
use super::replica_router::{Answer, Job, Permits, ReplicaRouter, Reply};
use super::snapshot::Gathered;
use super::{GATHER_CALLS, GATHER_PAUSE, LANE_BYTES, LANE_CALLS};

/// The service `ropewalk.v1.Raft` for the replicas of an [`ReplicaRouter`].
#[derive(Debug, Clone)]
pub struct RaftService {
    inbound: ReplicaRouter,
}

impl RaftService {
    pub(super) fn new(inbound: ReplicaRouter) -> RaftService {
        RaftService { inbound }
    }

    async fn install(
        &self,
        call: v1::SnapshotCall,
    ) -> Result<Response<v1::SnapshotAnswer>, Status> {
        let raft = self.inbound.find(call.group_id, call.to_replica_id)?;
        let vote = vote_from_wire(call.vote).map_err(WireError::from)?;
        let meta = snapshot_meta_from_wire(&vote, call.last_log_id, call.last_membership)
            .map_err(WireError::from)?;
        let answer = raft.install(vote, meta, call.checkpoint).await?;
        Ok(Response::new(v1::SnapshotAnswer {
            vote: Some(vote_to_wire(&answer.vote)),
        }))
    }

    /// A stream of answers until this node stops. `reader` accepts the calls, and ends with the stream.
    fn lane<T: Send + 'static>(
        &self,
        answers: impl Stream<Item = T> + Send + 'static,
        reader: impl Future<Output = ()> + Send + 'static,
    ) -> BoxStream<'static, Result<T, Status>> {
        let stopped = self.inbound.stopped().clone().cancelled_owned();
        Owned {
            answers: answers.map(Ok).take_until(stopped).boxed(),
            _reader: AbortOnDropHandle::new(tokio::spawn(reader)),
        }
        .boxed()
    }
}

#[tonic::async_trait]
impl Raft for RaftService {
    type AppendStream = BoxStream<'static, Result<v1::AppendAnswer, Status>>;
    type HeartbeatStream = BoxStream<'static, Result<v1::HeartbeatAnswer, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendCall>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (intake, answers) = intake();
        let inbound = self.inbound.clone();
        let reader = async move {
            let mut calls = request.into_inner();
            while let Some(Ok(call)) = calls.next().await {
                let Some(job) = intake.admit(call).await else {
                    return;
                };
                inbound.dispatch(job);
            }
        };
        let answers = ReceiverStream::new(answers).map(|answer| answer.wire);
        Ok(Response::new(self.lane(answers, reader)))
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<v1::HeartbeatCall>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let (intake, answers) = intake();
        let inbound = self.inbound.clone();
        let calls = request
            .into_inner()
            .take_while(|message| std::future::ready(message.is_ok()))
            .flat_map(|message| {
                futures_util::stream::iter(message.map(|m| m.calls).unwrap_or_default())
            });
        let reader = async move {
            calls
                .then(|call| intake.admit(call))
                .for_each_concurrent(LANE_CALLS, |job| async {
                    if let Some(job) = job {
                        inbound.heartbeat(job).await;
                    }
                })
                .await;
        };
        let answers = gather(answers, GATHER_CALLS, GATHER_PAUSE).map(|answers| {
            let answers = answers.into_iter().map(|answer| answer.wire).collect();
            v1::HeartbeatAnswer { answers }
        });
        Ok(Response::new(self.lane(answers, reader)))
    }

    async fn vote(
        &self,
        request: Request<v1::VoteCall>,
    ) -> Result<Response<v1::VoteAnswer>, Status> {
        let call = request.into_inner();
        let raft = self.inbound.find(call.group_id, call.to_replica_id)?;
        let request = VoteRequest {
            vote: vote_from_wire(call.vote).map_err(WireError::from)?,
            last_log_id: match is_planted(PlantedBug::GrantEveryVote) {
                false => log_id_from_wire(call.last_log_id).map_err(WireError::from)?,
                true => Some(LogId::new_term_index(LARGEST_TERM, LARGEST_TERM)),
            },
            leadership_transfer: call.leadership_transfer,
        };
        let answer = match call.pre_vote {
            true => self.inbound.bounded(raft.pre_vote(request)).await?,
            false => self.inbound.bounded(raft.vote(request)).await?,
        };
        Ok(Response::new(v1::VoteAnswer {
            vote: Some(vote_to_wire(&answer.vote)),
            granted: answer.vote_granted,
            last_log_id: answer.last_log_id.as_ref().map(log_id_to_wire),
        }))
    }

    async fn install_snapshot(
        &self,
        request: Request<v1::SnapshotCall>,
    ) -> Result<Response<v1::SnapshotAnswer>, Status> {
        self.install(request.into_inner()).await
    }

    async fn install_snapshot_parts(
        &self,
        request: Request<Streaming<v1::SnapshotPart>>,
    ) -> Result<Response<v1::SnapshotAnswer>, Status> {
        let mut parts = request.into_inner();
        let is_here = |call: &v1::SnapshotCall| {
            let found = self.inbound.find(call.group_id, call.to_replica_id);
            found.map(drop)
        };
        let Gathered { call, _room } = self.inbound.gathering().gather(&mut parts, is_here).await?;
        self.install(call).await
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipCall>,
    ) -> Result<Response<v1::TransferLeadershipAnswer>, Status> {
        let call = request.into_inner();
        let raft = self.inbound.find(call.group_id, call.to_replica_id)?;
        let request = TransferLeaderRequest::new(
            vote_from_wire(call.from_leader).map_err(WireError::from)?,
            ReplicaId(call.target_replica_id),
            log_id_from_wire(call.last_log_id).map_err(WireError::from)?,
        );
        let declined = self.inbound.bounded(raft.transfer(request)).await?.err();
        Ok(Response::new(v1::TransferLeadershipAnswer {
            accepted: declined.is_none(),
            reason: declined.unwrap_or_default(),
        }))
    }
}

/// The room of one incoming lane.
struct Intake {
    calls: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    answers: mpsc::Sender<Answer>,
}

fn intake() -> (Intake, mpsc::Receiver<Answer>) {
    let (answers, receiver) = mpsc::channel(LANE_CALLS);
    let intake = Intake {
        calls: Arc::new(Semaphore::new(LANE_CALLS)),
        bytes: Arc::new(Semaphore::new(LANE_BYTES)),
        answers,
    };
    (intake, receiver)
}

impl Intake {
    /// Waits for room for `call`, which keeps it until its answer is sent. None once the lane has ended.
    async fn admit(&self, call: v1::AppendCall) -> Option<Job> {
        let size = call.encoded_len().min(LANE_BYTES) as u32;
        let permits = Permits {
            _call: self.calls.clone().acquire_owned().await.ok()?,
            _bytes: self.bytes.clone().acquire_many_owned(size).await.ok()?,
        };
        let reply = Reply::new(call.call_id, self.answers.clone(), permits);
        Some(Job { call, reply })
    }
}

/// The answers of a lane, and the task that accepts its calls. The task ends with them.
struct Owned<T> {
    answers: BoxStream<'static, Result<T, Status>>,
    _reader: AbortOnDropHandle<()>,
}

impl<T> Stream for Owned<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.answers.poll_next_unpin(cx)
    }
}
