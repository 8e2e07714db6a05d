//! Checkpoints between two nodes over loopback: in parts, to an older node, broken off, too large.

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream;
use openraft::network::RaftNetworkFactory;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId};
use ropewalk_proto::v1::raft_server::{Raft, RaftServer};
use ropewalk_raft_store::types::{SnapshotMeta, Vote};
use ropewalk_raft_store::{RaftNode, TypeConfig};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response};

use super::super::convert::vote_to_wire;
use super::super::{Peers, RaftHandle, RaftService, ReplicaRouter, server};
use super::*;
use crate::config::Limits;
use crate::env::{ConnectionBounds, Incoming, Net, TcpNet};

const GROUP: GroupId = GroupId(7);
const FROM: ReplicaId = ReplicaId(10);
const TO: ReplicaId = ReplicaId(20);
const BOUND: Duration = Duration::from_secs(20);

/// Keeps the checkpoints that it was asked to install.
#[derive(Clone, Default)]
struct Installed(Arc<Mutex<Vec<Bytes>>>);

impl RaftHandle for Installed {
    fn append(
        &self,
        _: AppendEntriesRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<AppendEntriesResponse<TypeConfig>, WireError>> {
        std::future::pending().boxed()
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
        vote: Vote,
        _: SnapshotMeta,
        checkpoint: Bytes,
    ) -> BoxFuture<'_, Result<SnapshotResponse<TypeConfig>, WireError>> {
        self.0.lock().push(checkpoint);
        std::future::ready(Ok(SnapshotResponse::new(vote))).boxed()
    }

    fn transfer(
        &self,
        _: TransferLeaderRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<Result<(), String>, WireError>> {
        std::future::pending().boxed()
    }
}

/// The service of a node that does not support parts.
struct Older(RaftService);

#[tonic::async_trait]
impl Raft for Older {
    type AppendStream = <RaftService as Raft>::AppendStream;
    type HeartbeatStream = <RaftService as Raft>::HeartbeatStream;

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendCall>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        self.0.append(request).await
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<v1::HeartbeatCall>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        self.0.heartbeat(request).await
    }

    async fn vote(
        &self,
        request: Request<v1::VoteCall>,
    ) -> Result<Response<v1::VoteAnswer>, Status> {
        self.0.vote(request).await
    }

    async fn install_snapshot(
        &self,
        request: Request<v1::SnapshotCall>,
    ) -> Result<Response<v1::SnapshotAnswer>, Status> {
        self.0.install_snapshot(request).await
    }

    async fn install_snapshot_parts(
        &self,
        _: Request<Streaming<v1::SnapshotPart>>,
    ) -> Result<Response<v1::SnapshotAnswer>, Status> {
        Err(Status::unimplemented("an older node"))
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipCall>,
    ) -> Result<Response<v1::TransferLeadershipAnswer>, Status> {
        self.0.transfer_leadership(request).await
    }
}

/// A node with a replica, and another node's network to it.
struct Bench {
    inbound: ReplicaRouter,
    installed: Installed,
    network: Network,
    client: RaftClient<tonic::transport::Channel>,
    _serving: DropGuard,
}

impl Bench {
    async fn start(receiver: Limits, sender: Limits, is_older: bool) -> Bench {
        let inbound = ReplicaRouter::new(&receiver);
        let installed = Installed::default();
        inbound.register(GROUP, TO, installed.clone());
        let listener = TcpNet.listen("127.0.0.1:0").await.expect("a port");
        let address = listener.local_address();
        let stop = CancellationToken::new();
        let serving = stop.clone();
        let service = RaftService::new(inbound.clone());
        tokio::spawn(async move {
            let incoming =
                Incoming::new(listener, ConnectionBounds::of(8), CancellationToken::new());
            let mut server = server(&receiver);
            let served = match is_older {
                true => {
                    let service =
                        RaftServer::new(Older(service)).max_decoding_message_size(MESSAGE_BYTES);
                    server.add_service(service)
                }
                false => {
                    let service = RaftServer::new(service).max_decoding_message_size(MESSAGE_BYTES);
                    server.add_service(service)
                }
            };
            let served = served.serve_with_incoming(incoming.into_stream());
            serving.run_until_cancelled(served).await
        });
        let peers = Peers::new(Arc::new(TcpNet), &sender);
        let client = RaftClient::new(peers.channel(&address));
        let broker = RaftNode {
            node_id: NodeId(2),
            address,
        };
        Bench {
            network: peers.network(GROUP, FROM).new_client(TO, &broker).await,
            inbound,
            installed,
            client,
            _serving: stop.drop_guard(),
        }
    }

    /// Sends parts by hand. The call ends after them.
    async fn send(&self, parts: Vec<v1::SnapshotPart>) -> ErrorCode {
        let mut client = self.client.clone();
        let sent = client.install_snapshot_parts(stream::iter(parts));
        WireError::from(&sent.await.expect_err("it is no whole")).code
    }

    fn free_bytes(&self) -> usize {
        self.inbound.gathering().room.available_permits()
    }

    /// Waits until all memory is free: a call frees its memory shortly after its answer.
    async fn is_free(&self, bytes: usize) {
        let free = async {
            while self.free_bytes() != bytes {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(BOUND, free).await.expect("room again");
    }
}

fn limits(checkpoint_bytes: usize) -> Limits {
    Limits {
        checkpoint_bytes,
        ..Limits::default()
    }
}

fn checkpoint(bytes: usize) -> Bytes {
    let block: Vec<u8> = (0..=250).collect();
    block.into_iter().cycle().take(bytes).collect()
}

fn call(bytes: usize) -> v1::SnapshotCall {
    v1::SnapshotCall {
        group_id: GROUP.0,
        to_replica_id: TO.0,
        vote: Some(vote_to_wire(&Vote::new_committed(1, FROM))),
        last_log_id: None,
        last_membership: Some(v1::StoredMembership {
            log_id: None,
            membership: Some(v1::Membership::default()),
        }),
        checkpoint: checkpoint(bytes),
    }
}

#[tokio::test]
async fn a_checkpoint_larger_than_any_message_is_installed() {
    let bytes = CHECKPOINT_BYTES + 5 * PART_BYTES + 17;
    let bench = Bench::start(Limits::default(), Limits::default(), false).await;
    let sent = bench.network.send_snapshot(call(bytes), BOUND).await;
    assert!(sent.is_ok(), "{sent:?}");
    let installed = bench.installed.0.lock().clone();
    assert!(installed == [checkpoint(bytes)], "it came as it was sent");
    bench.is_free(Limits::default().checkpoint_bytes).await;
}

#[tokio::test]
async fn an_older_node_gets_a_checkpoint_in_one_message_if_it_is_not_too_large() {
    let bench = Bench::start(Limits::default(), Limits::default(), true).await;
    let sent = bench
        .network
        .send_snapshot(call(2 * PART_BYTES), BOUND)
        .await;
    assert!(sent.is_ok(), "{sent:?}");
    assert_eq!(bench.installed.0.lock().len(), 1);
    let large = call(CHECKPOINT_BYTES + 1);
    let refused = bench.network.send_snapshot(large, BOUND).await;
    let refused = refused.expect_err("it takes no parts").to_string();
    assert!(refused.contains("upgrade it"), "{refused}");
    assert_eq!(bench.installed.0.lock().len(), 1);
}

#[tokio::test]
async fn a_checkpoint_that_breaks_off_leaves_nothing() {
    let room = 8 * PART_BYTES;
    let bench = Bench::start(limits(room), Limits::default(), false).await;
    let whole = parts_of(call(6 * PART_BYTES));
    let mut cut = whole.clone();
    cut.truncate(3);
    assert_eq!(bench.send(cut.clone()).await, ErrorCode::InvalidRequest);
    bench.is_free(room).await;
    // The sender stops halfway, and its connection stays open.
    let silent = stream::iter(cut).chain(stream::pending());
    let mut client = bench.client.clone();
    let sending = tokio::spawn(async move { client.install_snapshot_parts(silent).await });
    let held = async {
        while bench.free_bytes() == room {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BOUND, held).await.expect("it is taken in");
    sending.abort();
    bench.is_free(room).await;
    let mut uneven = whole.clone();
    uneven.remove(2);
    uneven.insert(2, v1::SnapshotPart::default());
    assert_eq!(bench.send(uneven).await, ErrorCode::InvalidRequest);
    bench.is_free(room).await;
    assert!(bench.installed.0.lock().is_empty());
    let sent = bench
        .network
        .send_snapshot(call(6 * PART_BYTES), BOUND)
        .await;
    assert!(sent.is_ok(), "{sent:?}");
    assert_eq!(bench.installed.0.lock().len(), 1);
}

#[tokio::test]
async fn a_checkpoint_past_the_bound_is_neither_sent_nor_taken() {
    let (room, bytes) = (3 * PART_BYTES, 4 * PART_BYTES);
    let taking = Bench::start(limits(room), Limits::default(), false).await;
    let mut huge = parts_of(call(bytes));
    assert_eq!(taking.send(huge.clone()).await, ErrorCode::TooLarge);
    huge[0].checkpoint_bytes = u64::MAX;
    assert_eq!(taking.send(huge).await, ErrorCode::TooLarge);
    taking.is_free(room).await;
    let sending = Bench::start(Limits::default(), limits(room), false).await;
    let refused = sending.network.send_snapshot(call(bytes), BOUND).await;
    let refused = refused.expect_err("too large").to_string();
    assert!(refused.contains("checkpoint_bytes"), "{refused}");
    assert!(taking.installed.0.lock().is_empty() && sending.installed.0.lock().is_empty());
}

#[tokio::test]
async fn checkpoints_that_come_at_a_time_have_one_room() {
    let gathering = Gathering::new(5 * PART_BYTES, BOUND);
    let first = gathering.room_for(3 * PART_BYTES).expect("room");
    let refused = gathering.room_for(3 * PART_BYTES).expect_err("no room");
    assert_eq!(refused.code, ErrorCode::Overloaded);
    drop(first);
    assert!(gathering.room_for(3 * PART_BYTES).is_ok());
}
