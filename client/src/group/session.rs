//! One stream to a group's coordinator: matches each answer to its request.

use std::collections::BTreeMap;
use std::time::Duration;

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::group_request::Kind as Ask;
use ropewalk_proto::v1::group_response::Kind as Answer;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::assigned_partition::Position;
use crate::client::{Inner, timed_out};
use crate::error::{Error, ErrorKind, Result};

/// Capacity of the request queue: one request of each kind, and a commit in parts.
const REQUESTS: usize = 64;

/// Content of a request.
#[derive(Debug)]
pub(super) enum Sent {
    Heartbeat,
    Commit(Vec<Position>),
    Release(Vec<v1::GroupPlace>),
    Leave,
}

/// A refusal, with the address to ask instead.
#[derive(Debug)]
pub(super) struct Refused {
    pub error: Error,
    /// Address of the coordinator, if the refusing node knows it.
    pub leader: Option<String>,
}

/// A message of the coordinator.
#[derive(Debug)]
pub(super) enum Heard {
    /// The answer to a request, with the request.
    Answer(Sent, std::result::Result<Option<Answer>, Refused>),
    Assignment(v1::Assignment),
    /// End of the session.
    End(Refused),
}

#[derive(Debug)]
pub(super) struct Session {
    address: String,
    /// Time limit of the coordinator's answers.
    within: Duration,
    requests: mpsc::Sender<v1::GroupRequest>,
    answers: Streaming<v1::GroupResponse>,
    last_id: u64,
    pending: BTreeMap<u64, (Sent, Instant)>,
}

impl Session {
    /// Joins through the node at this address.
    pub async fn join(
        inner: &Inner,
        address: String,
        join: v1::Join,
        within: Duration,
    ) -> std::result::Result<(Session, v1::Assignment), Refused> {
        let joining = Session::try_join(inner, &address, join, within);
        let joined = timeout(within, joining).await;
        joined.unwrap_or_else(|_| Err(timed_out(&address, within).into()))
    }

    async fn try_join(
        inner: &Inner,
        address: &str,
        join: v1::Join,
        within: Duration,
    ) -> std::result::Result<(Session, v1::Assignment), Refused> {
        let mut node = inner.connections.node(address)?;
        let (requests, to_send) = mpsc::channel(REQUESTS);
        let first = v1::GroupRequest {
            request_id: 1,
            kind: Some(Ask::Join(join)),
        };
        // The channel is empty, and this function holds its other end.
        let _ = requests.try_send(first);
        let answers = node.join_group(ReceiverStream::new(to_send)).await;
        let answers = answers.map_err(|status| Error::from_status(&status, address))?;
        let mut session = Session {
            address: address.to_owned(),
            within,
            requests,
            answers: answers.into_inner(),
            last_id: 1,
            pending: BTreeMap::new(),
        };
        loop {
            match session.message().await?.kind {
                Some(Answer::Assignment(assignment)) => return Ok((session, assignment)),
                Some(Answer::Error(error)) => return Err(error.into()),
                _ => {}
            }
        }
    }

    /// Sends a request.
    pub fn send(&mut self, sent: Sent) -> Result<()> {
        let ask = match &sent {
            Sent::Heartbeat => Ask::Heartbeat(v1::Heartbeat {}),
            Sent::Commit(positions) => Ask::Commit(v1::Commit {
                positions: positions.iter().copied().map(Into::into).collect(),
            }),
            Sent::Release(places) => Ask::Release(v1::Release {
                partitions: places.clone(),
            }),
            Sent::Leave => Ask::Leave(v1::Leave {}),
        };
        self.last_id += 1;
        let request = v1::GroupRequest {
            request_id: self.last_id,
            kind: Some(ask),
        };
        if self.requests.try_send(request).is_err() {
            return Err(self.ended());
        }
        self.pending.insert(self.last_id, (sent, Instant::now()));
        Ok(())
    }

    /// Returns true if a request of this kind is unanswered.
    pub fn awaits(&self, kind: impl Fn(&Sent) -> bool) -> bool {
        self.pending.values().any(|(sent, _)| kind(sent))
    }

    /// Time at which the oldest unanswered request is overdue.
    pub fn overdue_at(&self) -> Option<Instant> {
        let first = self.pending.values().next();
        first.map(|(_, sent_at)| *sent_at + self.within)
    }

    /// The next message of the coordinator, with the send time of the request it answers. Cancel-safe.
    pub async fn next(&mut self) -> Result<(Heard, Option<Instant>)> {
        loop {
            let response = self.message().await?;
            let asked = self.pending.remove(&response.request_id);
            let sent_at = asked.as_ref().map(|(_, sent_at)| *sent_at);
            let heard = match (asked, response.kind) {
                (Some((sent, _)), Some(Answer::Error(error))) => {
                    Heard::Answer(sent, Err(error.into()))
                }
                (Some((sent, _)), answer) => Heard::Answer(sent, Ok(answer)),
                (None, Some(Answer::Assignment(assignment))) => Heard::Assignment(assignment),
                (None, Some(Answer::Error(error))) => Heard::End(error.into()),
                // A message from a newer coordinator, or a second answer.
                (None, _) => continue,
            };
            return Ok((heard, sent_at));
        }
    }

    /// Error of a coordinator that took too long.
    pub fn silent(&self) -> Error {
        timed_out(&self.address, self.within)
    }

    async fn message(&mut self) -> Result<v1::GroupResponse> {
        match self.answers.message().await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(self.ended()),
            Err(status) => Err(Error::from_status(&status, &self.address)),
        }
    }

    fn ended(&self) -> Error {
        Error::new(
            ErrorKind::Cluster(ErrorCode::LeadershipLost),
            format!(
                "{} ended the stream, as it does when it stops",
                self.address
            ),
        )
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused {
            error,
            leader: None,
        }
    }
}

impl From<v1::Error> for Refused {
    fn from(mut error: v1::Error) -> Refused {
        let leader = error.leader.take().map(|node| node.address);
        Refused {
            error: WireError::from(error).into(),
            leader: leader.filter(|address| !address.is_empty()),
        }
    }
}
