//! Streams of the sessions of groups' members.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::v1;
use ropewalk_proto::v1::group_response;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{AnswerStream, Service};
use crate::metrics::{Metrics, Rpc};
use crate::service::{Api, Caller};

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
    caller: Caller,
    requests: Streaming<v1::GroupRequest>,
) -> AnswerStream<v1::GroupResponse> {
    let (answers, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let Ok(api) = service.availability.api(caller) else {
            return;
        };
        let answers = Answers {
            to: answers,
            metrics: service.metrics.clone(),
        };
        serve(&api, requests, answers).await;
    });
    Box::pin(ReceiverStream::new(receiver))
}

async fn serve(api: &Api<'_>, mut requests: Streaming<v1::GroupRequest>, answers: Answers) {
    let first = tokio::time::timeout(JOIN_WITHIN, requests.next()).await;
    let request = match first {
        Ok(Some(Ok(request))) => request,
        Ok(Some(Err(refused))) => return answers.refuse(refused),
        Ok(None) | Err(_) => return,
    };
    let request_id = request.request_id;
    let begun = api.join_group(request.kind).await;
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
                Some(Ok(request)) => {
                    let request_id = request.request_id;
                    match api.in_session(&mut session, request.kind).await {
                        Ok(kind) => response(request_id, kind),
                        Err(error) => failed(request_id, error),
                    }
                }
                Some(Err(refused)) => return answers.refuse(refused),
                None => return,
            },
            changed = session.changed() => match changed {
                Ok(assignment) => response(0, group_response::Kind::Assignment(assignment)),
                // The session is over; the member must learn the reason.
                Err(error) => {
                    let last = failed(0, api.session_error(&session, error));
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

fn response(request_id: u64, kind: group_response::Kind) -> v1::GroupResponse {
    v1::GroupResponse {
        request_id,
        kind: Some(kind),
    }
}

fn failed(request_id: u64, error: v1::Error) -> v1::GroupResponse {
    response(request_id, group_response::Kind::Error(error))
}
