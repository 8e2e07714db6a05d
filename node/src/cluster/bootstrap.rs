//! Formation: a node returns to the cluster it was in, joins a running one, or founds one together with the
//! other nodes of its seed list.
//!
//! Founding: the node with the smallest address draws the cluster's id and the plan, persists the plan, and
//! sends it to the others, which persist it too. From then on they are equal. Each voter named in the plan
//! initializes the metadata group with the same membership, and each founding node keeps sending the plan.
//! The elected leader proposes `FoundCluster`. So any of them may crash at any moment. A node that did not
//! get the plan learns of the cluster from its seeds and joins.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ropewalk_proto::error::{ErrorCode, Retry, WireError};
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1::{
    FormCall, FormMember, FoundingNode, HelloAnswer, HelloCall, JoinAnswer, JoinCall, NodeIdentity,
    NodeState, meta_command,
};
use ropewalk_raft_store::RaftNode;
use tokio::time::{Instant, timeout};
use tonic::Request;

use super::context::{ClusterContext, MetadataReplica, StartError};
use super::discovery::{Discovered, SeedReply, decide};
use super::identity;
use super::members::MAX_VOTERS;
use super::propose::propose;
use super::starts;
use crate::raft::{EagerElections, found, leadership, patience};

/// Pause between two rounds of asking the seeds: the first and the longest.
const ASK_AGAIN: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// Interval between two log lines about the reason for the wait.
const SAY_AGAIN: Duration = Duration::from_secs(5);
/// Time after which any wait is a warning: a seed may be mistyped.
const WARN_AFTER: Duration = Duration::from_secs(30);
/// Interval between two requests for votes by the node that initialized the metadata group.
const ELECT_AGAIN: Duration = Duration::from_millis(200);

/// Reason why a node has no place in a cluster yet.
#[derive(Debug, Clone, PartialEq)]
struct Waits {
    why: String,
    /// True if only an operator can fix the cause.
    needs_operator: bool,
}

impl Waits {
    /// A wait that ends by itself.
    fn briefly(why: impl Into<String>) -> Waits {
        Waits {
            why: why.into(),
            needs_operator: false,
        }
    }

    fn for_operator(why: impl Into<String>) -> Waits {
        Waits {
            why: why.into(),
            needs_operator: true,
        }
    }

    /// Wait for a correct configuration.
    fn misconfigured(why: &str) -> Waits {
        Waits::for_operator(format!("CONFIGURATION: {why}"))
    }

    /// Logs the reason.
    fn say(&self, member_of: Option<&str>, since: Instant) {
        let why = &self.why;
        match member_of {
            Some(cluster) => {
                tracing::warn!("node has no data and can only rejoin cluster {cluster}: {why}");
            }
            None if self.needs_operator || since.elapsed() >= WARN_AFTER => {
                tracing::warn!("node is not in a cluster yet: {why}");
            }
            None => tracing::info!("node is not in a cluster yet: {why}"),
        }
    }
}

/// Waits until this node has a place in a cluster.
pub(super) async fn find_place(shared: &Arc<ClusterContext>) -> Result<NodeIdentity, StartError> {
    let mut changes = shared.identity.subscribe();
    let placed = changes.wait_for(identity::placed);
    let search = async {
        let mut pause = Pause::new();
        let since = Instant::now();
        let mut said: Option<(Instant, Waits)> = None;
        loop {
            let waits = match search_once(shared).await {
                Ok(waits) => waits,
                Err(error) => {
                    starts::refuse(&shared.store, &error.message).await;
                    return Err(StartError::StartedTwice(error.message));
                }
            };
            let due = said.as_ref().is_none_or(|(at, before)| {
                at.elapsed() >= SAY_AGAIN || (*before != waits && at.elapsed() >= SAY_AGAIN / 5)
            });
            if due {
                waits.say(shared.config.member_of.as_deref(), since);
                said = Some((Instant::now(), waits));
            }
            pause.next().await;
        }
    };
    tokio::select! {
        // A node that has its place does not search.
        biased;
        found = placed => found.map(|identity| identity.clone()).map_err(|_| StartError::Stopping),
        failed = search => failed,
        () = shared.stop.cancelled() => Err(StartError::Stopping),
    }
}

/// Runs one round and returns the reason for the wait. Fails if no further round can help: another process
/// runs with a copy of this node's data directory.
async fn search_once(shared: &Arc<ClusterContext>) -> Result<Waits, WireError> {
    let own = shared.own();
    Ok(match decide(&own, &ask_seeds(shared, &own.seeds).await) {
        Discovered::Wait(why) => Waits::briefly(why),
        Discovered::Misconfigured(why) => Waits::misconfigured(&why),
        Discovered::Join(addresses) => {
            let mut waits = Waits::briefly("no seed has admitted this node yet");
            for address in addresses {
                match join(shared, &address).await {
                    Ok(()) => return Ok(Waits::briefly(format!("joining through {address}"))),
                    Err(error) if error.code == ErrorCode::StartedTwice => return Err(error),
                    Err(error) if error.code == ErrorCode::AddressInUse => {
                        waits = Waits::misconfigured(&error.message);
                    }
                    Err(error) => {
                        let why = format!("node {address} has not admitted this node yet: {error}");
                        waits = Waits {
                            why,
                            needs_operator: error.code.retry() == Retry::Never,
                        };
                    }
                }
            }
            waits
        }
        Discovered::Found(plan) => {
            let cluster = identity::draw_cluster_id(&shared.env, &own.address);
            let Some(place) = identity::founding(&own.incarnation, &cluster, &plan) else {
                let why = "node is missing from its own founding plan";
                return Ok(Waits::briefly(why));
            };
            tracing::info!(cluster, nodes = plan.len(), "founding a cluster");
            match shared.take_place(place).await {
                Ok(()) => Waits::briefly("founding"),
                Err(error) => {
                    Waits::for_operator(format!("founding plan could not be stored: {error}"))
                }
            }
        }
    })
}

async fn ask_seeds(shared: &Arc<ClusterContext>, seeds: &[String]) -> Vec<SeedReply> {
    let others = seeds
        .iter()
        .filter(|seed| **seed != shared.config.advertise);
    join_all(others.map(|seed| async {
        let answer = hello(shared, seed).await;
        (seed.clone(), answer.map_err(|error| error.to_string()))
    }))
    .await
}

/// Asks the node at an address for its identity.
pub(super) async fn hello(shared: &ClusterContext, seed: &str) -> Result<HelloAnswer, WireError> {
    let call = HelloCall {
        address: shared.config.advertise.clone(),
        incarnation: shared.identity.borrow().incarnation.clone(),
        seeds: shared.config.seeds.clone(),
    };
    let mut client = shared.client(seed);
    bounded(shared.call_timeout(), client.hello(Request::new(call))).await
}

/// Asks the node at `address`, which is in a cluster, for a place, and persists it. For a node that has its
/// place already, this registers it again.
pub(super) async fn join(shared: &Arc<ClusterContext>, address: &str) -> Result<(), WireError> {
    let own = shared.registration();
    let now = shared.identity();
    let call = JoinCall {
        incarnation: own.incarnation.clone(),
        address: own.address,
        http: own.http,
        rack: own.rack,
        version: own.version,
        command_version: own.command_version,
        external: own.external,
        start: own.start,
        cluster_id: match identity::placed(&now) {
            true => now.cluster_id,
            false => shared.config.member_of.clone().unwrap_or_default(),
        },
    };
    let mut client = shared.client(address);
    let answer: JoinAnswer =
        bounded(shared.call_timeout() * 2, client.join(Request::new(call))).await?;
    if let Some(own) = &shared.config.member_of
        && *own != answer.cluster_id
    {
        return Err(WireError::new(
            ErrorCode::InvalidRequest,
            format!("node is in cluster {}, not in {own}", answer.cluster_id),
        ));
    }
    shared
        .take_place(NodeIdentity {
            incarnation: own.incarnation,
            cluster_id: answer.cluster_id,
            node_id: answer.node_id,
            meta_replica_id: answer.meta_replica_id,
            founding: Vec::new(),
        })
        .await
}

/// Registers this node, which has its place, with the metadata group at its current address.
pub(super) async fn make_known(shared: &Arc<ClusterContext>) -> Result<(), WireError> {
    let command = meta_command::Kind::RegisterNode(shared.registration());
    let mut error = match propose(shared, command, shared.call_timeout()).await {
        Ok(_) => return Ok(()),
        Err(error) if error.code.retry() == Retry::Never => return Err(error),
        Err(error) => error,
    };
    // If this node has moved, the leader cannot reach it, and it may not know the leader.
    let (view, identity) = (shared.view.borrow().clone(), shared.identity());
    let nodes = view.nodes.values();
    let nodes = nodes.filter(|node| node.state != NodeState::Removed);
    let members: BTreeSet<&str> = nodes.map(|node| node.address.as_str()).collect();
    let known: BTreeSet<&str> = members
        .iter()
        .copied()
        .chain(identity.founding.iter().map(|node| node.address.as_str()))
        .chain(shared.config.seeds.iter().map(String::as_str))
        .filter(|address| *address != shared.config.advertise)
        .collect();
    for address in known {
        match join(shared, address).await {
            Ok(()) => return Ok(()),
            // Only its own cluster may end this node permanently.
            Err(other) if is_final(other.code) && !members.contains(address) => {}
            // A refusal says more than a timeout. Yet the address may belong to another cluster by now.
            Err(other) if error.code.retry() != Retry::Never => error = other,
            Err(_) => {}
        }
    }
    Err(error)
}

/// True for a refusal that takes this node's place in its cluster away.
pub(super) fn is_final(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NodeRemoved | ErrorCode::StartedTwice)
}

/// Initializes the metadata group with the membership of the plan. Every voter may do so, since all use the
/// same membership. The first voter starts at once. Each other one starts only if those before it do not, so
/// that they do not compete for the leadership.
pub(super) async fn begin(
    shared: Arc<ClusterContext>,
    identity: NodeIdentity,
    meta: MetadataReplica,
) {
    let voters: Vec<&FoundingNode> = identity.founding.iter().take(MAX_VOTERS).collect();
    let place = voters
        .iter()
        .position(|node| node.node_id == identity.node_id);
    let Some(place) = place else { return };
    if meta.raft.is_initialized().await.unwrap_or(true) {
        return;
    }
    let patience = patience(&shared.config.limits, place);
    if leadership::is_led(&meta.raft, patience).await {
        return;
    }
    let members: BTreeMap<_, _> = voters
        .into_iter()
        .map(|node| {
            let broker = RaftNode {
                node_id: NodeId(node.node_id),
                address: node.address.clone(),
            };
            (
                identity::founding_replica(&identity.cluster_id, node),
                broker,
            )
        })
        .collect();
    if !found(&meta.raft, members, "metadata").await {
        return;
    }
    // The others may have got their place too late for the first election.
    let eager = EagerElections::new(Instant::now());
    while !eager.are_over() && !leadership::is_led(&meta.raft, ELECT_AGAIN).await {
        if eager.request(&meta.raft).await.is_err() {
            return;
        }
    }
}

/// Sends the plan to every node in it until each has it or the cluster is founded. After that, a node without
/// the plan joins by itself.
pub(super) async fn spread_plan(shared: Arc<ClusterContext>, identity: NodeIdentity) {
    let mut views = shared.view.subscribe();
    let founded = views.wait_for(|view| !view.cluster_id.is_empty());
    let others = identity.founding.iter();
    let others = others.filter(|node| node.node_id != identity.node_id);
    let spread = join_all(others.map(|node| give_plan(&shared, &identity, node)));
    tokio::select! {
        _ = founded => {}
        _ = spread => {}
    }
}

async fn give_plan(shared: &Arc<ClusterContext>, identity: &NodeIdentity, to: &FoundingNode) {
    let mut pause = Pause::new();
    loop {
        let member = |node: &FoundingNode| FormMember {
            node_id: node.node_id,
            address: node.address.clone(),
            incarnation: node.incarnation.clone(),
        };
        let call = FormCall {
            cluster_id: identity.cluster_id.clone(),
            members: identity.founding.iter().map(member).collect(),
        };
        let mut client = shared.client(&to.address);
        match bounded(shared.call_timeout(), client.form(Request::new(call))).await {
            Ok(_) => return,
            Err(error) => {
                tracing::debug!(
                    to = to.address,
                    %error,
                    "founding plan not accepted by a node; retrying"
                );
            }
        }
        pause.next().await;
    }
}

/// The answer of a call within a bound, or the error. [`ErrorCode::NotServing`] means that no connection was
/// made: the call has certainly done nothing.
pub(super) async fn bounded<A>(
    bound: Duration,
    call: impl Future<Output = Result<tonic::Response<A>, tonic::Status>>,
) -> Result<A, WireError> {
    match timeout(bound, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if never_sent(&status) => {
            Err(WireError::new(ErrorCode::NotServing, status.message()))
        }
        Ok(Err(status)) => Err(WireError::from(&status)),
        Err(_) => Err(WireError::new(
            ErrorCode::Timeout,
            format!("node did not answer within {} ms", bound.as_millis()),
        )),
    }
}

fn never_sent(status: &tonic::Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A pause that doubles each time, up to a bound.
#[derive(Debug)]
pub(super) struct Pause(Duration);

impl Pause {
    pub fn new() -> Pause {
        Pause(ASK_AGAIN[0])
    }

    pub async fn next(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(ASK_AGAIN[1]);
    }
}
