//! A lane to one peer: the AppendEntries of all groups on one stream. Call ids match answers to their calls.
//!
//! Calls are sent in the order of their submission. If the stream breaks, all waiting calls fail at once, and
//! the next call opens another stream. A lane belongs to its peer: its task ends when the [`AppendStream`] is
//! dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use prost::Message;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1::append_answer::Result as Answered;
use ropewalk_proto::v1::raft_client::RaftClient;
use ropewalk_proto::v1::{AppendAnswer, AppendCall, AppendResult, HeartbeatCall};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::transport::Channel;

use super::backoff::Backoff;
use super::coalesce::gather;
use super::{GATHER_CALLS, GATHER_PAUSE, LANE_BYTES, LANE_QUEUE, MESSAGE_BYTES};

/// Messages queued between the lane and the connection.
const OUTBOUND: usize = 16;

/// A reason why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum AppendStreamError {
    /// The peer cannot be reached, or the stream to it broke.
    #[error("{0}")]
    Down(String),
    /// No answer within the call's time.
    #[error("no answer within {0} ms")]
    Timeout(u128),
    /// The peer refused the call.
    #[error(transparent)]
    Refused(#[from] WireError),
}

/// The content of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Entries: one message for each call.
    Data,
    /// Heartbeats: one message for all that are queued.
    Heartbeat,
}

/// One lane. If it is dropped, its waiting calls fail.
#[derive(Debug)]
pub(super) struct AppendStream {
    calls: mpsc::Sender<Call>,
    bytes: Arc<Semaphore>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Call {
    wire: AppendCall,
    done: oneshot::Sender<Result<AppendResult, AppendStreamError>>,
}

/// A pending answer.
#[derive(Debug)]
pub(super) struct Waiting {
    done: oneshot::Receiver<Result<AppendResult, AppendStreamError>>,
    deadline: Instant,
    bound: Duration,
    _bytes: OwnedSemaphorePermit,
}

impl AppendStream {
    /// A lane on `channel`. It sends nothing before the first call. The stream counts as broken if calls wait
    /// and nothing arrives for `silence`.
    pub(super) fn new(kind: Kind, channel: Channel, silence: Duration) -> AppendStream {
        let (calls, queue) = mpsc::channel(LANE_QUEUE);
        let runner = Runner {
            kind,
            client: RaftClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES)
                .max_encoding_message_size(MESSAGE_BYTES),
            silence,
            next_call_id: 0,
        };
        AppendStream {
            calls,
            bytes: Arc::new(Semaphore::new(LANE_BYTES)),
            _task: AbortOnDropHandle::new(tokio::spawn(runner.run(queue))),
        }
    }

    /// Sends a call after those submitted before it; waits only for room. The answer arrives or fails within
    /// `bound` from now.
    pub(super) async fn submit(
        &self,
        wire: AppendCall,
        bound: Duration,
    ) -> Result<Waiting, AppendStreamError> {
        let size = wire.encoded_len();
        if size > LANE_BYTES {
            let why = format!("AppendEntries of {size} bytes is larger than any peer accepts");
            return Err(WireError::new(ErrorCode::TooLarge, why).into());
        }
        let deadline = Instant::now() + bound;
        let (done, answer) = oneshot::channel();
        let send = async {
            // LANE_BYTES is far below the maximum number of permits.
            let bytes = self.bytes.clone().acquire_many_owned(size as u32).await;
            let sent = self.calls.send(Call { wire, done }).await;
            bytes.ok().filter(|_| sent.is_ok())
        };
        match timeout_at(deadline, send).await {
            Ok(Some(bytes)) => Ok(Waiting {
                done: answer,
                deadline,
                bound,
                _bytes: bytes,
            }),
            Ok(None) => Err(AppendStreamError::Down("node is stopping".to_owned())),
            Err(_) => Err(AppendStreamError::Timeout(bound.as_millis())),
        }
    }
}

impl Waiting {
    /// Waits for the answer.
    pub(super) async fn answer(self) -> Result<AppendResult, AppendStreamError> {
        match timeout_at(self.deadline, self.done).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(AppendStreamError::Down("node is stopping".to_owned())),
            Err(_) => Err(AppendStreamError::Timeout(self.bound.as_millis())),
        }
    }
}

impl Call {
    fn fail(self, why: &str) {
        let _ = self.done.send(Err(AppendStreamError::Down(why.to_owned())));
    }
}

/// The task of a lane.
struct Runner {
    kind: Kind,
    client: RaftClient<Channel>,
    silence: Duration,
    next_call_id: u64,
}

type Answers = BoxStream<'static, Result<AppendAnswer, Status>>;

impl Runner {
    async fn run(mut self, mut queue: mpsc::Receiver<Call>) {
        let mut backoff = Backoff::default();
        while let Some(call) = queue.recv().await {
            if let Some(why) = backoff.refusal() {
                call.fail(why);
                continue;
            }
            let (outbound, receiver) = mpsc::channel(OUTBOUND);
            let opened = timeout(self.silence, self.open(receiver)).await;
            let opened = opened
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("peer did not open the stream")));
            let mut session = Session {
                answers: match opened {
                    Ok(answers) => answers,
                    Err(status) => {
                        let why = describe(&status);
                        call.fail(&why);
                        backoff.failed(why);
                        continue;
                    }
                },
                outbound,
                waiting: BTreeMap::new(),
                heard: Instant::now(),
                answered: false,
            };
            let why = session.run(call, &mut queue, &mut self).await;
            tracing::debug!(kind = ?self.kind, why, "stream to a peer ended");
            for done in std::mem::take(&mut session.waiting).into_values() {
                let _ = done.send(Err(AppendStreamError::Down(why.clone())));
            }
            match session.answered {
                true => backoff.succeeded(),
                false => backoff.failed(why),
            }
        }
    }

    fn open(
        &mut self,
        calls: mpsc::Receiver<AppendCall>,
    ) -> BoxFuture<'static, Result<Answers, Status>> {
        let mut client = self.client.clone();
        match self.kind {
            Kind::Data => Box::pin(async move {
                let answers = client.append(ReceiverStream::new(calls)).await?;
                Ok(answers.into_inner().boxed())
            }),
            Kind::Heartbeat => Box::pin(async move {
                let calls = gather(calls, GATHER_CALLS, GATHER_PAUSE);
                let calls = calls.map(|calls| HeartbeatCall { calls });
                let answers = client.heartbeat(calls).await?.into_inner();
                let answers = answers.flat_map(|message| {
                    let answers = match message {
                        Ok(message) => message.answers.into_iter().map(Ok).collect(),
                        Err(status) => vec![Err(status)],
                    };
                    futures_util::stream::iter(answers)
                });
                Ok(answers.boxed())
            }),
        }
    }
}

/// One stream, from its opening to its end.
struct Session {
    outbound: mpsc::Sender<AppendCall>,
    answers: Answers,
    waiting: BTreeMap<u64, oneshot::Sender<Result<AppendResult, AppendStreamError>>>,
    /// Time of the last answer, or of the last call sent while no other was waiting.
    heard: Instant,
    answered: bool,
}

impl Session {
    /// Carries calls until the stream breaks, and returns the reason.
    async fn run(
        &mut self,
        first: Call,
        queue: &mut mpsc::Receiver<Call>,
        runner: &mut Runner,
    ) -> String {
        let outbound = self.outbound.clone();
        let mut next = Some(first);
        let mut look = tokio::time::interval(runner.silence / 4);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                answer = self.answers.next() => match answer {
                    Some(Ok(answer)) => self.complete(answer),
                    Some(Err(status)) => return fail(next, describe(&status)),
                    None => return fail(next, "peer ended the stream".to_owned()),
                },
                place = outbound.reserve(), if next.is_some() => match place {
                    Ok(place) => if let Some(call) = next.take() {
                        self.send(call, place, &mut runner.next_call_id);
                    },
                    Err(_) => return fail(next, "connection broke".to_owned()),
                },
                call = queue.recv(), if next.is_none() => match call {
                    Some(call) => next = Some(call),
                    None => return "node is stopping".to_owned(),
                },
                _ = look.tick(), if !self.waiting.is_empty() => {
                    self.waiting.retain(|_, done| !done.is_closed());
                    if self.heard.elapsed() > runner.silence {
                        let silence = runner.silence.as_millis();
                        return fail(next, format!("peer was silent for {silence} ms"));
                    }
                },
            }
        }
    }

    fn send(&mut self, call: Call, place: mpsc::Permit<'_, AppendCall>, next_call_id: &mut u64) {
        let Call { mut wire, done } = call;
        if done.is_closed() {
            return; // the caller has given up
        }
        if self.waiting.is_empty() {
            self.heard = Instant::now();
        }
        *next_call_id += 1;
        wire.call_id = *next_call_id;
        self.waiting.insert(wire.call_id, done);
        place.send(wire);
    }

    fn complete(&mut self, answer: AppendAnswer) {
        self.heard = Instant::now();
        self.answered = true;
        let Some(done) = self.waiting.remove(&answer.call_id) else {
            return; // the caller has given up
        };
        let _ = done.send(match answer.result {
            Some(Answered::Appended(result)) => Ok(result),
            Some(Answered::Error(error)) => Err(AppendStreamError::Refused(error.into())),
            None => Err(AppendStreamError::Refused(WireError::new(
                ErrorCode::UnsupportedVersion,
                "peer's answer has an unknown kind; upgrade this node",
            ))),
        });
    }
}

fn fail(call: Option<Call>, why: String) -> String {
    if let Some(call) = call {
        call.fail(&why);
    }
    why
}

/// A status with the causes that tonic keeps behind it.
pub(super) fn describe(status: &Status) -> String {
    let mut text = format!("{}: {}", status.code(), status.message());
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
