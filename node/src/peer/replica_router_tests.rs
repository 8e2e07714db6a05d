//! The guarantees of a replica's queue to its peers.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use ropewalk_raft_store::TypeConfig;
use ropewalk_raft_store::types::{LogId, SnapshotMeta, Vote};
use tokio::sync::Semaphore;
use tokio::task::coop;

use super::super::convert::append_to_wire;
use super::*;

/// More calls than a task may handle before tokio's cooperative budget makes it yield.
const CALLS: u64 = 5_000;

/// Queues AppendEntries through a channel, as openraft's core does, and answers when polled again.
struct Recorder(mpsc::Sender<u64>);

impl RaftHandle for Recorder {
    fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<AppendEntriesResponse<TypeConfig>, WireError>> {
        async move {
            let number = request.leader_commit.map_or(0, |commit| commit.index);
            let _ = self.0.send(number).await;
            coop::consume_budget().await;
            Ok(AppendEntriesResponse::Success)
        }
        .boxed()
    }

    fn last_log_index(&self) -> Option<u64> {
        None
    }

    fn vote(
        &self,
        _: VoteRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<VoteResponse<TypeConfig>, WireError>> {
        std::future::pending().boxed()
    }

    fn pre_vote(
        &self,
        _: VoteRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<VoteResponse<TypeConfig>, WireError>> {
        std::future::pending().boxed()
    }

    fn install(
        &self,
        _: Vote,
        _: SnapshotMeta,
        _: Bytes,
    ) -> BoxFuture<'_, Result<SnapshotResponse<TypeConfig>, WireError>> {
        std::future::pending().boxed()
    }

    fn transfer(
        &self,
        _: TransferLeaderRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<Result<(), String>, WireError>> {
        std::future::pending().boxed()
    }
}

fn job(number: u64, answers: &mpsc::Sender<Answer>, room: &Arc<Semaphore>) -> Job {
    let request = AppendEntriesRequest {
        vote: Vote::new_committed(1, ReplicaId(1)),
        prev_log_id: None,
        entries: vec![],
        leader_commit: Some(LogId::new_term_index(1, number)),
    };
    let permit = || room.clone().try_acquire_owned().expect("room");
    let permits = Permits {
        _call: permit(),
        _bytes: permit(),
    };
    Job {
        call: AppendCall {
            call_id: number,
            request: Some(append_to_wire(&request)),
            ..AppendCall::default()
        },
        reply: Reply::new(number, answers.clone(), permits),
    }
}

#[tokio::test]
async fn a_busy_replica_gets_its_entries_in_the_order_in_which_they_came() {
    let (seen, mut order) = mpsc::channel(CALLS as usize);
    let (answers, mut answered) = mpsc::channel(CALLS as usize);
    let (queue, jobs) = mpsc::channel(CALLS as usize);
    let room = Arc::new(Semaphore::new(2 * CALLS as usize));
    for number in 0..CALLS {
        queue
            .try_send(job(number, &answers, &room))
            .expect("the queue has room");
    }
    drop((queue, answers));
    let bound = Duration::from_secs(60);
    work(
        jobs,
        Arc::new(Recorder(seen)),
        Arc::default(),
        Arc::default(),
        bound,
    )
    .await;
    for number in 0..CALLS {
        assert_eq!(order.recv().await, Some(number));
        let answer = answered.recv().await.expect("an answer");
        assert_eq!(answer.wire.call_id, number);
    }
}
