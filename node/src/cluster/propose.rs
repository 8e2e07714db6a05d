//! Proposals to the metadata group. A node proposes to its own replica if that leads, else through the leader.

use std::sync::Arc;
use std::time::Duration;

use ropewalk_machines::meta::frozen;
use ropewalk_machines::meta::machine::{is_repeatable, since_version};
use ropewalk_proto::command::{Command, Reply};
use ropewalk_proto::error::{ErrorCode, Outcome, WireError};
use ropewalk_proto::v1::{
    MetaCommand, MetaReply, ProposeMetaAnswer, ProposeMetaCall, meta_command, meta_reply,
};
use tokio::time::{Instant, timeout_at};
use tonic::Request;

use super::bootstrap::bounded;
use super::context::{ClusterContext, MetadataReplica};
use super::{admission, naming};
use crate::raft::{self, Unanswered};

/// Pause between two attempts while there is no leader.
const RETRY: Duration = Duration::from_millis(50);
/// Maximum time that a proposer waits until its own node has applied its command.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// Proposes a command, and repeats it after errors that allow that, until the group has answered or `within`
/// has passed.
pub(super) async fn propose(
    shared: &Arc<ClusterContext>,
    kind: meta_command::Kind,
    within: Duration,
) -> Result<Option<meta_reply::Kind>, WireError> {
    let deadline = Instant::now() + within;
    let mut in_doubt = false;
    loop {
        let attempt = timeout_at(deadline, attempt(shared, &kind)).await;
        let error = match attempt {
            Ok(Ok(answer)) => {
                let answer = finish(shared, answer, deadline).await;
                return match in_doubt {
                    true => made_before(shared, &kind, answer),
                    false => answer,
                };
            }
            Ok(Err(error)) => error,
            Err(_) => out_of_time(within),
        };
        let unknown = error.code.outcome() == Outcome::Unknown;
        in_doubt |= unknown;
        let again = match unknown {
            true => is_repeatable(&kind),
            false => is_elsewhere(error.code),
        };
        if !again || Instant::now() + RETRY >= deadline {
            return Err(error);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Refuses a command that some node of the cluster cannot apply. That node's metadata replica would stop at
/// its entry.
fn check_version(meta: &MetadataReplica, command: &MetaCommand) -> Result<(), WireError> {
    if let Some(meta_command::Kind::AlterTopic(topic)) = &command.kind
        && let Some(setting) = frozen::unknown_setting(&topic.changed)
    {
        return Err(WireError::new(
            ErrorCode::UnsupportedVersion,
            format!(
                "topic setting {setting} is unknown to the leader of the metadata group; upgrade \
                 that node"
            ),
        ));
    }
    let needed = command.kind.as_ref().map_or(1, since_version);
    let oldest = match needed {
        1 => return Ok(()),
        _ => meta.view.machine().oldest_understood(),
    };
    match oldest {
        // The version of a founding node is unknown until it registers.
        Some((node, 0)) => Err(WireError::new(
            ErrorCode::NoLeader,
            format!("node {node} has not registered yet; try again shortly"),
        )),
        Some((node, version)) if version < needed => Err(WireError::new(
            ErrorCode::UnsupportedVersion,
            format!(
                "node {node} understands commands up to version {version}, and this command is of \
                 version {needed}; upgrade it, or wait until it has registered"
            ),
        )),
        _ => Ok(()),
    }
}

/// Turns `TopicExists` into success if the topic is as requested. An earlier attempt, which got no answer, is
/// assumed to have created it.
fn made_before(
    shared: &ClusterContext,
    kind: &meta_command::Kind,
    answer: Result<Option<meta_reply::Kind>, WireError>,
) -> Result<Option<meta_reply::Kind>, WireError> {
    let (meta_command::Kind::CreateTopic(asked), Err(error)) = (kind, &answer) else {
        return answer;
    };
    if error.code != ErrorCode::TopicExists {
        return answer;
    }
    let Some(topic) = shared.meta()?.view.machine().topic(&asked.name) else {
        return answer;
    };
    let same = topic.partitions.len() == asked.partitions as usize;
    match same && topic.settings == asked.settings {
        true => Ok(Some(meta_reply::Kind::Topic(topic))),
        false => answer,
    }
}

/// True if a leader elsewhere may accept the command soon.
fn is_elsewhere(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NoLeader | ErrorCode::NotLeader | ErrorCode::NotServing
    )
}

/// Proposes once: here if this node leads, else by a call to the leader.
async fn attempt(
    shared: &Arc<ClusterContext>,
    kind: &meta_command::Kind,
) -> Result<ProposeMetaAnswer, WireError> {
    let meta = shared.meta()?;
    let command = MetaCommand {
        leader_time_ms: shared.env.clock.now_ms(),
        kind: Some(kind.clone()),
    };
    if meta.leads() {
        return propose_here(shared, meta, command).await;
    }
    let leader = meta.leader().ok_or_else(no_leader)?;
    let call = ProposeMetaCall {
        command: Some(command),
        cluster_id: shared.identity.borrow().cluster_id.clone(),
    };
    let address = shared.peers.address_of(leader.node_id, &leader.address);
    let mut client = shared.client(&address);
    let answer = client.propose_meta(Request::new(call));
    bounded(shared.call_timeout() * 2, answer).await
}

/// Proposes to the replica on this node, which must lead.
pub(super) async fn propose_here(
    shared: &ClusterContext,
    meta: &MetadataReplica,
    mut command: MetaCommand,
) -> Result<ProposeMetaAnswer, WireError> {
    if !meta.leads() {
        return Err(WireError::new(
            ErrorCode::NotLeader,
            "node does not lead the metadata group",
        ));
    }
    match &mut command.kind {
        Some(meta_command::Kind::RegisterNode(node)) => {
            admission::admit(shared, meta, node).await?;
        }
        Some(meta_command::Kind::FoundCluster(plan)) => naming::check_founding(plan)?,
        _ => {}
    }
    check_version(meta, &command)?;
    command.leader_time_ms = shared.env.clock.now_ms();
    let bound = shared.call_timeout();
    let written = raft::propose(&meta.raft, Command::Meta(command), bound).await;
    let written = written.map_err(|error| match error {
        Unanswered::NotProposed(_) => no_leader(),
        Unanswered::Late => out_of_time(bound),
        Unanswered::InDoubt(why) => WireError::new(
            ErrorCode::LeadershipLost,
            format!(
                "metadata change is not confirmed ({why}) and may have been made; check before \
                 you make it again"
            ),
        ),
    })?;
    let reply = match written.data {
        Reply::Meta(reply) => reply,
        Reply::Refused(error) => return Err(error),
        _ => MetaReply::default(),
    };
    Ok(ProposeMetaAnswer {
        reply: Some(reply),
        log_index: written.log_id.index,
    })
}

/// Waits until this node has applied its own command, so that its view shows the change. Converts the answer
/// into the proposer's result.
async fn finish(
    shared: &ClusterContext,
    answer: ProposeMetaAnswer,
    deadline: Instant,
) -> Result<Option<meta_reply::Kind>, WireError> {
    if let Ok(meta) = shared.meta() {
        let mut applied = meta.view.applied();
        let seen = applied.wait_for(|index| *index >= answer.log_index);
        let within = deadline.min(Instant::now() + SEEN_WITHIN);
        if timeout_at(within, seen).await.is_err() {
            tracing::debug!("node lags behind the metadata it changed");
        }
        super::handle::refresh_view(shared, meta);
    }
    match answer.reply.and_then(|reply| reply.kind) {
        Some(meta_reply::Kind::Error(error)) => Err(error.into()),
        kind => Ok(kind),
    }
}

fn no_leader() -> WireError {
    WireError::new(
        ErrorCode::NoLeader,
        "metadata group has no leader: too few nodes are up, or an election is in progress; try \
         again shortly",
    )
}

fn out_of_time(within: Duration) -> WireError {
    WireError::new(
        ErrorCode::Timeout,
        format!(
            "metadata group did not answer within {} ms; the change may have been made, check \
             before you make it again",
            within.as_millis()
        ),
    )
}
