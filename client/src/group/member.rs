//! The task behind a subscription. It finds the group's coordinator, joins, and stays a member until it must
//! leave or can't continue.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::assignment::TopicPartitionId;
use super::commit::{Commits, Waiter};
use super::rebalance::{Listener, Rebalance};
use super::session::Session;
use super::settings::{Closing, Command, End, Settings};
use super::shared::Shared;
use crate::backoff::Backoff;
use crate::client::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::reader::Skipped;
use crate::telling::Telling;

/// Session timeouts without a coordinator after which the subscription ends.
const SESSIONS_WITHOUT_COORDINATOR: u32 = 3;
/// Time for which a first join retries an unknown topic: older nodes reject topics that they do not know yet.
const TOPIC_SEEN_WITHIN: Duration = Duration::from_secs(2);
/// Maximum number of consecutive redirects without a pause.
const HOPS: usize = 3;
/// A session that ends sooner is followed by a pause, so that sessions that always fail do not loop.
const LASTING: Duration = Duration::from_secs(1);
/// Time limit of a coordinator's answer, unless the session timeout is shorter.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Time limit of the last commit and the leave.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// Outcome of the lookup of a start offset.
pub(super) type Resolved = (TopicPartitionId, u64, Result<u64>);

pub(super) struct Member {
    pub inner: Arc<Inner>,
    pub shared: Arc<Shared>,
    pub settings: Settings,
    pub listener: Listener,
    pub commands: mpsc::Receiver<Command>,
    /// Reports of batches that the readers skipped.
    pub skipped: mpsc::Receiver<Skipped>,
    pub commits: Commits,
    pub closing: Option<Closing>,
    pub resolving: FuturesUnordered<BoxFuture<'static, Resolved>>,
    member_id: String,
    /// True once the group has known this id.
    entered: bool,
    /// Waits for the first assignment.
    joined: Option<oneshot::Sender<()>>,
    /// Address of the coordinator, if a node has named it.
    hint: Option<String>,
    /// Number of addresses asked so far.
    asked: usize,
    /// True after the listener was told that the coordinator is gone.
    disconnected: bool,
    /// Time of the last contact with a coordinator.
    connected_at: Instant,
    /// Pauses between joins that fail or have no result.
    backoff: Backoff,
}

impl Member {
    pub fn new(
        inner: Arc<Inner>,
        shared: Arc<Shared>,
        settings: Settings,
        listener: Listener,
        (commands, skipped): (mpsc::Receiver<Command>, mpsc::Receiver<Skipped>),
        joined: oneshot::Sender<()>,
    ) -> Member {
        let member_id = shared.state.lock().member_id.clone();
        let backoff = Backoff::new(inner.draw());
        Member {
            inner,
            shared,
            settings,
            listener,
            commands,
            skipped,
            commits: Commits::default(),
            closing: None,
            resolving: FuturesUnordered::new(),
            member_id,
            entered: false,
            joined: Some(joined),
            hint: None,
            asked: 0,
            disconnected: false,
            connected_at: Instant::now(),
            backoff,
        }
    }

    /// Runs until the end, and reports the outcome to the stream.
    pub async fn run(mut self) {
        let _if_it_panics = FailsOnPanic(self.shared.clone());
        let ended = self.live().await;
        let closing = self.closing.take();
        let reply = closing.map(|closing| (closing.reply, closing.error));
        let (reply, error) = reply.unwrap_or_default();
        let result = ended.and_then(|()| error.map_or(Ok(()), Err));
        match &result {
            Ok(()) => self.shared.stop(),
            Err(error) => self.shared.fail(error.clone()),
        }
        if let Some(reply) = reply {
            // The caller may be gone.
            let _ = reply.send(result);
        }
    }

    async fn live(&mut self) -> Result<()> {
        loop {
            let Some(mut session) = self.join().await? else {
                return Ok(());
            };
            let began = Instant::now();
            let end = self.attend(&mut session).await;
            self.connected_at = Instant::now();
            self.commits.lost();
            self.shared.state.lock().say_again();
            match end {
                End::Left => return Ok(()),
                End::Fatal(error) => return Err(self.in_group(error)),
                End::Unknown(error) => self.begin_anew(error)?,
                End::Broke(refused) => {
                    self.hint = refused.leader;
                    self.disconnected(refused.error);
                }
            }
            if began.elapsed() >= LASTING {
                self.backoff.succeeded();
            } else {
                let pause = self.backoff.pause();
                // If the time to close is over meanwhile, the next join reports it.
                let _ = self.meanwhile(sleep(pause)).await;
            }
        }
    }

    /// Joins, and retries as long as it may help. None if the application closed the subscription meanwhile,
    /// and the time for it is over.
    async fn join(&mut self) -> Result<Option<Session>> {
        let mut hops = 0;
        let mut failed = Telling::default();
        let mut told = false;
        loop {
            let address = self.next_address();
            let sent_at = Instant::now();
            let (inner, join) = (self.inner.clone(), self.introduction());
            let within = ANSWER_WITHIN.min(self.shared.session());
            let joining = async move { Session::join(&inner, address, join, within).await };
            let Some(joined) = self.meanwhile(joining).await else {
                return self.closed_unheard();
            };
            let refused = match joined {
                Ok((session, assignment)) => {
                    self.joined(assignment, sent_at);
                    return Ok(Some(session));
                }
                Err(refused) => refused,
            };
            let unknown = refused.error.code() == Some(ErrorCode::UnknownMember);
            if unknown {
                self.begin_anew(refused.error.clone())?;
            } else if !refused.error.is_retryable() {
                return Err(self.in_group(refused.error));
            }
            let patience = self.patience(&refused.error);
            let telling = match unknown {
                true => refused.error.clone(),
                false => failed.add(refused.error.clone()),
            };
            if Instant::now() >= self.connected_at + patience {
                let what = format!(
                    "no coordinator of group {:?} took the member for {:.1?}",
                    self.settings.group,
                    self.connected_at.elapsed()
                );
                return Err(telling.context(what).with_outcome_unknown(false));
            }
            tracing::debug!(group = self.settings.group, error = %refused.error, "a join failed");
            self.hint = refused.leader;
            self.refused(&refused.error, &mut told);
            if !unknown {
                self.disconnected(refused.error);
            }
            hops += 1;
            if self.hint.is_some() && hops < HOPS {
                continue;
            }
            hops = 0;
            let pause = self.backoff.pause();
            if self.meanwhile(sleep(pause)).await.is_none() {
                return self.closed_unheard();
            }
        }
    }

    /// Time for which joins may fail with this error.
    fn patience(&self, error: &Error) -> Duration {
        let session = self.shared.session();
        let sessions = session.saturating_mul(SESSIONS_WITHOUT_COORDINATOR);
        // A topic that existed earlier may come back; a topic that never existed is a wrong name.
        if self.joined.is_some() && error.says_there_is_none() {
            return TOPIC_SEEN_WITHIN.min(sessions);
        }
        sessions
    }

    fn introduction(&self) -> v1::Join {
        let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        v1::Join {
            group: self.settings.group.clone(),
            member_id: self.member_id.clone(),
            instance_id: self.settings.instance_id.clone(),
            client: self.settings.client.clone(),
            topics: self.settings.topics.clone(),
            pattern: self.settings.pattern.clone(),
            session_ms: self.settings.session_timeout.map_or(0, ms),
            rebalance_ms: ms(self.settings.rebalance_timeout),
            again: self.entered,
        }
    }

    fn next_address(&mut self) -> String {
        if let Some(hint) = self.hint.take() {
            return hint;
        }
        let addresses = self.inner.addresses();
        let which = self.asked % addresses.len().max(1);
        self.asked += 1;
        addresses.into_iter().nth(which).unwrap_or_default()
    }

    fn joined(&mut self, assignment: v1::Assignment, sent_at: Instant) {
        if std::mem::take(&mut self.disconnected) {
            self.listener.tell(&Rebalance::Reconnected);
        }
        self.entered = true;
        self.shared.heard(sent_at);
        self.assigned(assignment);
        if let Some(joined) = self.joined.take() {
            // The builder may have been dropped; then this task is about to be dropped too.
            let _ = joined.send(());
        }
    }

    /// Applies an assignment of the coordinator.
    pub fn assigned(&mut self, assignment: v1::Assignment) {
        // The rest of the time is for the last commit and the release.
        let within = self.settings.rebalance_timeout * 4 / 5;
        for told in self.shared.apply(assignment, within) {
            if let Rebalance::TopicsMissing(topics) = &told {
                tracing::warn!(
                    group = self.settings.group,
                    topics = topics.join(", "),
                    "topics of the subscription do not exist; they are read once they are created"
                );
            }
            self.listener.tell(&told);
        }
        self.shared.change(|state| state.begin());
    }

    /// Prepares to join under a new id after the session is over and all partitions are lost. Fails if the
    /// member is closing anyway.
    fn begin_anew(&mut self, error: Error) -> Result<()> {
        if self.closing.is_some() {
            return Err(self.in_group(error));
        }
        tracing::info!(group = self.settings.group, %error, "the member's session is over");
        self.member_id = draw_member_id(&self.inner);
        self.entered = false;
        for told in self.shared.lose_all(self.member_id.clone()) {
            self.listener.tell(&told);
        }
        Ok(())
    }

    /// Reports once that there is no room for the member. A bound does not go away by itself.
    fn refused(&self, error: &Error, told: &mut bool) {
        if error.code() != Some(ErrorCode::Overloaded) || std::mem::replace(told, true) {
            return;
        }
        tracing::warn!(
            group = self.settings.group,
            %error,
            "group member has no room at its coordinator; trying again"
        );
        self.listener.tell(&Rebalance::Refused(error.clone()));
    }

    fn disconnected(&mut self, error: Error) {
        // Before the first assignment there was no session, so its end is not reported.
        if self.joined.is_none() && !self.disconnected {
            self.disconnected = true;
            self.listener.tell(&Rebalance::Disconnected(error));
        }
    }

    /// Waits for a future, and takes the application's commands meanwhile. None if the time to close is over
    /// first.
    async fn meanwhile<F: Future>(&mut self, waiting: F) -> Option<F::Output> {
        tokio::pin!(waiting);
        loop {
            let until = self.closing.as_ref().map(|closing| closing.until);
            tokio::select! {
                done = &mut waiting => return Some(done),
                Some(command) = self.commands.recv() => self.note(command),
                () = until_then(until) => return None,
            }
        }
    }

    /// Takes a command of the application. It is carried out as soon as there is a session.
    pub fn note(&mut self, command: Command) {
        match command {
            Command::Commit(waiter) => self.commits.want(waiter),
            Command::Close { leave, reply } => {
                let leave = leave.unwrap_or(self.settings.instance_id.is_empty());
                self.close(leave, Some(reply), None);
            }
        }
    }

    /// Starts to close: no more records, a last commit, and a leave if asked for.
    pub fn close(&mut self, leave: bool, reply: Option<Waiter>, error: Option<Error>) {
        if self.closing.is_some() {
            return;
        }
        match &error {
            Some(error) => self.shared.fail(error.clone()),
            None => self.shared.stop(),
        }
        if self.settings.auto_commit.is_some() {
            self.commits.want(None);
        }
        self.closing = Some(Closing {
            leave,
            until: Instant::now() + CLOSE_WITHIN,
            reply,
            error,
        });
    }

    fn closed_unheard<T>(&self) -> Result<Option<T>> {
        let why = self
            .closing
            .as_ref()
            .and_then(|closing| closing.error.clone());
        Err(why.unwrap_or_else(|| {
            self.in_group(Error::new(
                ErrorKind::Timeout,
                format!("no coordinator could be told of the end within {CLOSE_WITHIN:?}; what was done since the last commit comes again"),
            ))
        }))
    }

    fn in_group(&self, error: Error) -> Error {
        error.context(format_args!("consumer group {:?}", self.settings.group))
    }
}

/// Generates a unique member id.
pub(super) fn draw_member_id(inner: &Inner) -> String {
    format!("{:016x}{:016x}", inner.draw(), inner.draw())
}

/// Waits until that time, or for ever without one.
pub(super) async fn until_then(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Fails the stream if a listener's panic ends the member, so that the application does not wait for ever.
struct FailsOnPanic(Arc<Shared>);

impl Drop for FailsOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::new(
                ErrorKind::Closed,
                "the rebalance listener panicked, and with it the member of the group",
            ));
        }
    }
}
