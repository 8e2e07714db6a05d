//! openraft's network: calls from one replica to another.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{BoxStream, Stream, StreamExt};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use parking_lot::Mutex;
use prost::Message;
use ropewalk_proto::error::WireError;
use ropewalk_proto::ids::{GroupId, ReplicaId};
use ropewalk_proto::v1;
use ropewalk_proto::v1::raft_client::RaftClient;
use ropewalk_raft_store::types::{LogId, Vote};
use ropewalk_raft_store::{RaftNode, Traces, TypeConfig};
use tokio::time::Instant;
use tonic::{Code, Response, Status};

use super::append_stream::{AppendStreamError, Kind, Waiting, describe};
use super::backoff::pauses;
use super::convert::{
    Malformed, append_to_wire, appended_from_wire, log_id_from_wire, log_id_to_wire,
    snapshot_meta_to_wire, vote_from_wire, vote_to_wire,
};
use super::peers::{Peer, Peers};
use super::trace;
use super::{MESSAGE_BYTES, PIPELINE};

/// Makes the [`Network`]s of one replica.
#[derive(Debug, Clone)]
pub struct Networks {
    peers: Peers,
    group: GroupId,
    from: ReplicaId,
    claims: Claims,
    newcomers: Newcomers,
    traces: Traces,
}

/// Compaction offsets that other replicas of a group have reported. A report stays true. Clones share the
/// same state.
#[derive(Debug, Clone, Default)]
pub struct Claims(Arc<Mutex<BTreeMap<ReplicaId, u64>>>);

impl Claims {
    /// Reported offset of a replica: compaction has nothing left to remove below it. 0 without a report.
    pub fn of(&self, replica: ReplicaId) -> u64 {
        self.0.lock().get(&replica).copied().unwrap_or(0)
    }

    /// Forgets replicas that have left the group.
    pub fn retain(&self, keep: impl Fn(ReplicaId) -> bool) {
        self.0.lock().retain(|replica, _| keep(*replica));
    }

    fn heard(&self, replica: ReplicaId, to_offset: u64) {
        if to_offset > 0 {
            self.0.lock().insert(replica, to_offset);
        }
    }
}

/// The learners of a group. Clones share the same state.
#[derive(Debug, Clone, Default)]
pub struct Newcomers(Arc<Mutex<BTreeSet<ReplicaId>>>);

impl Newcomers {
    /// Replaces the set of learners.
    pub fn set(&self, newcomers: BTreeSet<ReplicaId>) {
        *self.0.lock() = newcomers;
    }

    fn are(&self, replica: ReplicaId) -> bool {
        self.0.lock().contains(&replica)
    }
}

/// The connection of one replica to another.
#[derive(Debug)]
pub struct Network {
    pub(super) peers: Peers,
    node: RaftNode,
    kind: Kind,
    pub(super) group: GroupId,
    from: ReplicaId,
    pub(super) to: ReplicaId,
    claims: Claims,
    newcomers: Newcomers,
    traces: Traces,
}

pub(super) type RpcError = RPCError<TypeConfig>;

impl Networks {
    pub(super) fn new(peers: Peers, group: GroupId, from: ReplicaId) -> Networks {
        Networks {
            peers,
            group,
            from,
            claims: Claims::default(),
            newcomers: Newcomers::default(),
            traces: Traces::default(),
        }
    }

    /// The same networks, with the traces of sampled batches.
    pub fn traced(self, traces: Traces) -> Networks {
        Networks { traces, ..self }
    }

    /// The other replicas' reports while this one leads.
    pub fn claims(&self) -> Claims {
        self.claims.clone()
    }

    /// The learners of this replica while it leads.
    pub fn newcomers(&self) -> Newcomers {
        self.newcomers.clone()
    }

    fn network(&self, to: ReplicaId, node: &RaftNode, kind: Kind) -> Network {
        Network {
            peers: self.peers.clone(),
            node: node.clone(),
            kind,
            group: self.group,
            from: self.from,
            to,
            claims: self.claims.clone(),
            newcomers: self.newcomers.clone(),
            traces: self.traces.clone(),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Networks {
    type Network = Network;

    async fn new_client(&mut self, target: ReplicaId, node: &RaftNode) -> Network {
        self.network(target, node, Kind::Data)
    }

    async fn new_heartbeat_client(&mut self, target: ReplicaId, node: &RaftNode) -> Network {
        self.network(target, node, Kind::Heartbeat)
    }
}

/// The data needed to read an answer: the first and the last log id of its request.
struct Sent {
    prev: Option<LogId>,
    last: Option<LogId>,
    /// Start time, if the request has entries.
    began: Option<Instant>,
    waiting: Result<Waiting, AppendStreamError>,
}

impl Network {
    /// The present address of the replica's node. openraft keeps a stream, and the address it was opened
    /// with, for as long as a leader leads.
    pub(super) fn peer(&self) -> Arc<Peer> {
        self.peers.peer_of(&self.node)
    }

    async fn send(&self, request: AppendEntriesRequest<TypeConfig>, bound: Duration) -> Sent {
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let has_entries = !request.entries.is_empty();
        let mut append = append_to_wire(&request);
        trace::pass_on(&self.traces, &request.entries, &mut append.entries);
        let call = v1::AppendCall {
            call_id: 0, // set by the lane
            group_id: self.group.0,
            from_replica_id: self.from.0,
            to_replica_id: self.to.0,
            request: Some(append),
        };
        drop(request);
        self.keep_to_the_rate(&call).await;
        let began = has_entries.then(Instant::now);
        Sent {
            prev,
            last,
            began,
            waiting: self
                .peer()
                .append_stream(self.kind)
                .submit(call, bound)
                .await,
        }
    }

    /// Applies the rate limit to entries for a learner: no acknowledgement waits for them.
    async fn keep_to_the_rate(&self, call: &v1::AppendCall) {
        let has_entries = |request: &v1::AppendEntries| !request.entries.is_empty();
        if call.request.as_ref().is_some_and(has_entries) && self.newcomers.are(self.to) {
            self.peers.rebalancing().take(call.encoded_len()).await;
        }
    }

    /// Maximum time for an AppendEntries. openraft allows entries the time of a heartbeat, but a follower's
    /// disk may need longer. Heartbeats keep to openraft's time.
    fn append_bound(&self, option: &RPCOption) -> Duration {
        match self.kind {
            Kind::Data => self.peers.call_timeout().max(option.soft_ttl()),
            Kind::Heartbeat => self.peers.call_timeout().min(option.soft_ttl()),
        }
    }

    /// A bounded call outside the lanes.
    pub(super) async fn unary<T>(
        &self,
        what: RPCTypes,
        bound: Duration,
        call: impl AsyncFnOnce(RaftClient<tonic::transport::Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, RpcError> {
        let client = RaftClient::new(self.peer().channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES);
        match tokio::time::timeout(bound, call(client)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.status_error(&status)),
            Err(_) => Err(self.timeout(what, bound)),
        }
    }

    async fn ask(
        &self,
        request: VoteRequest<TypeConfig>,
        pre_vote: bool,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let call = v1::VoteCall {
            group_id: self.group.0,
            to_replica_id: self.to.0,
            pre_vote,
            vote: Some(vote_to_wire(&request.vote)),
            last_log_id: request.last_log_id.as_ref().map(log_id_to_wire),
            leadership_transfer: request.leadership_transfer,
        };
        let bound = self.peers.call_timeout().min(option.soft_ttl());
        let answer = self
            .unary(RPCTypes::Vote, bound, async |mut client| {
                client.vote(call).await
            })
            .await?;
        Ok(VoteResponse {
            vote: vote_from_wire(answer.vote).map_err(nonsense)?,
            vote_granted: answer.granted,
            last_log_id: log_id_from_wire(answer.last_log_id).map_err(nonsense)?,
        })
    }

    pub(super) fn timeout(&self, action: RPCTypes, timeout: Duration) -> RpcError {
        RPCError::Timeout(Timeout {
            action,
            id: self.from,
            target: self.to,
            timeout,
        })
    }

    fn lane_error(&self, error: AppendStreamError) -> RpcError {
        match error {
            AppendStreamError::Timeout(ms) => self.timeout(
                RPCTypes::AppendEntries,
                Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)),
            ),
            AppendStreamError::Down(_) | AppendStreamError::Refused(_) => unreachable_error(&error),
        }
    }

    pub(super) fn status_error(&self, status: &Status) -> RpcError {
        match status.code() {
            Code::Unavailable | Code::Unknown => {
                unreachable_error(&AppendStreamError::Down(describe(status)))
            }
            _ => unreachable_error(&WireError::from(status)),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let sent = self.send(request, self.append_bound(&option)).await;
        self.read(sent).await.map(|(response, _)| response)
    }

    /// Sends up to [`PIPELINE`] requests at a time, in order; their answers arrive in order. The stream ends
    /// with the first answer that is not a full success: the requests sent after it were in vain.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let bound = self.append_bound(&option);
        let network: &'s Network = self;
        let answers = input
            .then(move |request| network.send(request, bound))
            .map(move |sent| network.read(sent))
            .buffered(PIPELINE)
            .scan(false, |ended, result| {
                if *ended {
                    return std::future::ready(None);
                }
                let (result, complete) = match result {
                    Ok((response, sent)) => {
                        let result = response.into_stream_result(sent.prev, sent.last);
                        let complete = result == Ok(sent.last);
                        (Ok(result), complete)
                    }
                    Err(error) => (Err(error), false),
                };
                *ended = !complete;
                std::future::ready(Some(result))
            })
            .boxed();
        std::future::ready(Ok(answers)).boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask(request, false, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask(request, true, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, Bytes>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let Snapshot { meta, snapshot } = snapshot;
        let (last_log_id, last_membership) = snapshot_meta_to_wire(&meta);
        let call = v1::SnapshotCall {
            group_id: self.group.0,
            to_replica_id: self.to.0,
            vote: Some(vote_to_wire(&vote)),
            last_log_id,
            last_membership: Some(last_membership),
            checkpoint: snapshot,
        };
        let bound = self.peers.call_timeout().max(option.soft_ttl());
        let sending = self.send_snapshot(call, bound);
        let answer = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            answer = sending => answer?,
        };
        let vote = vote_from_wire(answer.vote).map_err(nonsense)?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<Result<(), TransferLeaderError<TypeConfig>>, RpcError> {
        let call = v1::TransferLeadershipCall {
            group_id: self.group.0,
            to_replica_id: self.to.0,
            from_leader: Some(vote_to_wire(request.from_leader())),
            target_replica_id: request.to_node_id().0,
            last_log_id: request.last_log_id().map(log_id_to_wire),
        };
        let bound = self.peers.call_timeout().min(option.soft_ttl());
        let answer = self
            .unary(RPCTypes::TransferLeader, bound, async |mut client| {
                client.transfer_leadership(call).await
            })
            .await?;
        if answer.accepted {
            return Ok(Ok(()));
        }
        tracing::info!(group = %self.group, target = %self.to, why = answer.reason,
            "replica declined the leadership transfer");
        // The reason crosses the wire as text: openraft only logs the kind of the error.
        Ok(Err(TransferLeaderError::LogNotFlushed {
            expected: request.last_log_id().copied(),
            actual: None,
        }))
    }

    /// openraft's pauses before it tries an unreachable replica again.
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(pauses()))
    }
}

impl Network {
    async fn read(
        &self,
        sent: Sent,
    ) -> Result<(AppendEntriesResponse<TypeConfig>, SentRange), RpcError> {
        let Sent {
            prev,
            last,
            began,
            waiting,
        } = sent;
        let answer = match waiting {
            Ok(waiting) => waiting.answer().await,
            Err(error) => Err(error),
        };
        let answer = answer.map_err(|error| self.lane_error(error))?;
        let response = appended_from_wire(&answer, prev.as_ref()).map_err(nonsense)?;
        if let Some(began) = began {
            self.peers.traffic().replicate.took(began.elapsed());
        }
        self.claims.heard(self.to, answer.compacted_to);
        Ok((response, SentRange { prev, last }))
    }
}

/// The log ids around a request's entries: after `prev`, up to `last`.
struct SentRange {
    prev: Option<LogId>,
    last: Option<LogId>,
}

/// Reports every cause as unreachable, so that openraft pauses before it tries again.
pub(super) fn unreachable_error<E: std::error::Error + 'static>(error: &E) -> RpcError {
    RPCError::Unreachable(Unreachable::new(error))
}

fn nonsense(error: Malformed) -> RpcError {
    RPCError::Network(NetworkError::new(&error))
}
