//! Consumer groups: a member's session as a stream, and the calls of operators. Any node accepts an
//! operator's call and forwards it to the group's coordinator. A member must connect to the coordinator
//! itself.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::GROUPS_TOPIC;
use ropewalk_proto::v1;
use ropewalk_proto::v1::ropewalk_client::RopewalkClient;
use ropewalk_proto::v1::{group_request, group_response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::{AnswerStream, Service, is_marked, stream_error};
use crate::coordinator::Session;
use crate::metrics::{Metrics, Rpc};
use crate::service::forward::{self, Route, marked};
use crate::service::{Caller, Serving};

/// Maximum time between the opening of a session and the member's join request.
const JOIN_WITHIN: Duration = Duration::from_secs(10);

/// Answer channel to a member, which counts every answer.
struct Answers {
    to: mpsc::Sender<Result<v1::GroupResponse, Status>>,
    metrics: Arc<Metrics>,
}

impl Answers {
    /// Sends one answer; returns false if the member is gone.
    async fn send(&self, answer: v1::GroupResponse) -> bool {
        let code = match &answer.kind {
            Some(group_response::Kind::Error(error)) => Some(ErrorCode::from_number(error.code)),
            _ => None,
        };
        self.metrics.requests.answered(Rpc::JoinGroup, code);
        self.to.send(Ok(answer)).await.is_ok()
    }

    /// Ends the session of a member that sent a refused message, or is gone. Does not wait for a member that
    /// reads no answers. Not counted: most such members disconnected without a leave request.
    fn refuse(&self, status: Status) {
        let _ = self.to.try_send(Err(status));
    }
}

/// Serves one member's session.
pub(super) fn session(
    service: Service,
    requests: Streaming<v1::GroupRequest>,
) -> AnswerStream<v1::GroupResponse> {
    let (answers, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let Ok(serving) = service.serving() else {
            return;
        };
        let answers = Answers {
            to: answers,
            metrics: service.metrics.clone(),
        };
        serve(serving, requests, answers).await;
    });
    Box::pin(ReceiverStream::new(receiver))
}

async fn serve(serving: &Serving, mut requests: Streaming<v1::GroupRequest>, answers: Answers) {
    let first = tokio::time::timeout(JOIN_WITHIN, requests.next()).await;
    let request = match first {
        Ok(Some(Ok(request))) => request,
        Ok(Some(Err(refused))) => return answers.refuse(refused),
        Ok(None) | Err(_) => return,
    };
    let request_id = request.request_id;
    let begun = begin(serving, request).await;
    let (mut session, assignment) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            answers.send(failed(request_id, error)).await;
            return;
        }
    };
    let assigned = group_response::Kind::Assignment(assignment);
    if !answers.send(response(request_id, assigned)).await {
        return;
    }
    loop {
        let answer = tokio::select! {
            request = requests.next() => match request {
                Some(Ok(request)) => handle(serving, &mut session, request).await,
                Some(Err(refused)) => return answers.refuse(refused),
                None => return,
            },
            changed = session.changed() => match changed {
                Ok(assignment) => response(0, group_response::Kind::Assignment(assignment)),
                // The session is over; the member must learn the reason.
                Err(error) => {
                    let last = failed(0, at_home(serving, &session, error));
                    answers.send(last).await;
                    return;
                }
            },
            () = answers.to.closed() => return,
        };
        if !answers.send(answer).await {
            return;
        }
    }
}

async fn begin(
    serving: &Serving,
    request: v1::GroupRequest,
) -> Result<(Session, v1::Assignment), v1::Error> {
    let Some(group_request::Kind::Join(join)) = request.kind else {
        let error = WireError::new(
            ErrorCode::InvalidRequest,
            "the first request of a session must join a group",
        );
        return Err(error.into());
    };
    let group = join.group.clone();
    let joined = async {
        let mut session = serving.coordinator.join(join).await?;
        let assignment = session.assignment()?;
        Ok::<_, WireError>((session, assignment))
    };
    match joined.await {
        Ok(joined) => Ok(joined),
        Err(error) => match serving.coordinator.home(&group).await {
            Ok(home) => Err(stream_error(serving, GROUPS_TOPIC, home.partition, error)),
            Err(_) => Err(error.into()),
        },
    }
}

async fn handle(
    serving: &Serving,
    session: &mut Session,
    request: v1::GroupRequest,
) -> v1::GroupResponse {
    let request_id = request.request_id;
    match answer(session, request).await {
        Ok(kind) => response(request_id, kind),
        Err(error) => failed(request_id, at_home(serving, session, error)),
    }
}

async fn answer(
    session: &mut Session,
    request: v1::GroupRequest,
) -> Result<group_response::Kind, WireError> {
    use group_request::Kind;
    session.heartbeat()?;
    let done = group_response::Kind::Done(v1::GroupDone {});
    match request.kind {
        Some(Kind::Heartbeat(_)) => Ok(done),
        Some(Kind::Commit(commit)) => session
            .commit(commit)
            .await
            .map(group_response::Kind::Committed),
        Some(Kind::Release(release)) => session.release(release).await.map(|()| done),
        Some(Kind::Leave(_)) => session.leave().await.map(|()| done),
        Some(Kind::Join(_)) => Err(WireError::new(
            ErrorCode::InvalidRequest,
            "the member is in its group already; one stream is one session",
        )),
        None => Err(WireError::new(
            ErrorCode::UnsupportedVersion,
            "a request of a kind that this node does not know; upgrade it",
        )),
    }
}

fn at_home(serving: &Serving, session: &Session, error: WireError) -> v1::Error {
    stream_error(serving, GROUPS_TOPIC, session.home().partition, error)
}

fn response(request_id: u64, kind: group_response::Kind) -> v1::GroupResponse {
    v1::GroupResponse {
        request_id,
        kind: Some(kind),
    }
}

fn failed(request_id: u64, error: v1::Error) -> v1::GroupResponse {
    response(request_id, group_response::Kind::Error(error))
}

pub(super) async fn list(
    serving: &Serving,
    request: v1::ListGroupsRequest,
) -> Result<v1::ListGroupsResponse, WireError> {
    let groups = match request.local {
        true => serving.coordinator.list_here(),
        false => serving.coordinator.list().await?,
    };
    Ok(v1::ListGroupsResponse { groups })
}

pub(super) async fn describe(
    serving: &Serving,
    caller: &Caller,
    request: Request<v1::DescribeGroupRequest>,
) -> Result<v1::GroupInfo, WireError> {
    let group = request.get_ref().group.clone();
    match elsewhere(serving, caller, &group, &request).await? {
        Some(mut client) => {
            forward::answer(client.describe_group(marked(request.into_inner())).await)
        }
        None => serving.coordinator.describe(&group).await,
    }
}

pub(super) async fn lag(
    serving: &Serving,
    caller: &Caller,
    request: Request<v1::GroupLagRequest>,
) -> Result<v1::GroupLagResponse, WireError> {
    let group = request.get_ref().group.clone();
    match elsewhere(serving, caller, &group, &request).await? {
        Some(mut client) => forward::answer(client.group_lag(marked(request.into_inner())).await),
        None => serving.coordinator.lag(&group).await,
    }
}

pub(super) async fn seek(
    serving: &Serving,
    caller: &Caller,
    request: Request<v1::SeekGroupRequest>,
) -> Result<v1::SeekGroupResponse, WireError> {
    let group = request.get_ref().group.clone();
    match elsewhere(serving, caller, &group, &request).await? {
        Some(mut client) => forward::answer(client.seek_group(marked(request.into_inner())).await),
        None => {
            let positions = serving.coordinator.seek(request.get_ref()).await?;
            Ok(v1::SeekGroupResponse { positions })
        }
    }
}

pub(super) async fn delete(
    serving: &Serving,
    caller: &Caller,
    request: Request<v1::DeleteGroupRequest>,
) -> Result<v1::DeleteGroupResponse, WireError> {
    let group = request.get_ref().group.clone();
    match elsewhere(serving, caller, &group, &request).await? {
        Some(mut client) => {
            forward::answer(client.delete_group(marked(request.into_inner())).await)
        }
        None => {
            serving.coordinator.delete(&group).await?;
            Ok(v1::DeleteGroupResponse {})
        }
    }
}

/// Returns a client of the group's coordinator if that is another node. A forwarded call is not forwarded
/// again.
async fn elsewhere<T>(
    serving: &Serving,
    caller: &Caller,
    group: &str,
    request: &Request<T>,
) -> Result<Option<RopewalkClient<Channel>>, WireError> {
    if caller.route(is_marked(request.metadata())) == Route::Here {
        return Ok(None);
    }
    let home = serving.coordinator.home(group).await?;
    let leader = serving.leader(GROUPS_TOPIC, home.partition);
    let other = leader.filter(|node| node.node_id != serving.cluster.node_id().0);
    Ok(other.map(|node| RopewalkClient::new(serving.peers.channel(&node.address))))
}
