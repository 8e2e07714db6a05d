//! The calls that a replica accepts from its peers.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::storage::{RaftStateMachine, Snapshot};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_raft_store::TypeConfig;
use ropewalk_raft_store::types::{SnapshotMeta, Vote};

/// One replica, with any state machine.
pub trait RaftHandle: Send + Sync + 'static {
    /// AppendEntries. Requests reach the replica in the order in which the futures are first polled. The
    /// caller may await their answers together.
    fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<AppendEntriesResponse<TypeConfig>, WireError>>;

    /// The index of the last entry here, as of a moment ago.
    fn last_log_index(&self) -> Option<u64>;

    /// A request for this replica's vote.
    fn vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<VoteResponse<TypeConfig>, WireError>>;

    /// A question whether this replica would grant its vote.
    fn pre_vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<VoteResponse<TypeConfig>, WireError>>;

    /// A checkpoint for this replica to install.
    fn install(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        checkpoint: Bytes,
    ) -> BoxFuture<'_, Result<SnapshotResponse<TypeConfig>, WireError>>;

    /// A leader's request that this replica take over the leadership. The inner error is the reason for a
    /// refusal.
    fn transfer(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<Result<(), String>, WireError>>;
}

impl<S> RaftHandle for openraft::Raft<TypeConfig, S>
where
    S: RaftStateMachine<TypeConfig, SnapshotData = Bytes>,
{
    fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<AppendEntriesResponse<TypeConfig>, WireError>> {
        async move { self.append_entries(request).await.map_err(stopped) }.boxed()
    }

    fn last_log_index(&self) -> Option<u64> {
        self.metrics().borrow_watched().last_log_index
    }

    fn vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<VoteResponse<TypeConfig>, WireError>> {
        async move { self.vote(request).await.map_err(stopped) }.boxed()
    }

    fn pre_vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<VoteResponse<TypeConfig>, WireError>> {
        async move { self.pre_vote(request).await.map_err(stopped) }.boxed()
    }

    fn install(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        checkpoint: Bytes,
    ) -> BoxFuture<'_, Result<SnapshotResponse<TypeConfig>, WireError>> {
        async move {
            let snapshot = Snapshot {
                meta,
                snapshot: checkpoint,
            };
            let installed = self.install_full_snapshot(vote, snapshot).await;
            installed.map_err(stopped)
        }
        .boxed()
    }

    fn transfer(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<Result<(), String>, WireError>> {
        async move {
            let answer = self
                .handle_transfer_leader(request)
                .await
                .map_err(stopped)?;
            Ok(answer.map_err(|declined| declined.to_string()))
        }
        .boxed()
    }
}

/// The error of a stopped replica. openraft answers with an error only after it has stopped.
fn stopped(error: impl std::fmt::Display) -> WireError {
    WireError::new(
        ErrorCode::NotServing,
        format!("replica has stopped on this node: {error}"),
    )
}
