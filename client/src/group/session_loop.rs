//! One session of a member: sends its requests on time, and handles the answers.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::assigned_partition::{Phase, Which};
use super::member::{Member, Resolved};
use super::rebalance::{Rebalance, TopicPartition};
use super::session::{Sent, Session};
use super::settings::{End, end_of};
use crate::error::{Error, ErrorKind};
use crate::metadata::PartitionId;

/// Maximum number of concurrent lookups of start offsets.
const RESOLVING: usize = 16;
/// Maximum number of positions in one request.
const POSITIONS: usize = 5_000;
/// Heartbeats per session if the coordinator names no interval.
const BEATS_IN_A_SESSION: u32 = 3;

/// Deadlines of the periodic tasks.
struct Clocks {
    beat: Duration,
    beat_at: Instant,
    commit_at: Option<Instant>,
}

impl Member {
    /// Runs the session until it ends.
    pub async fn attend(&mut self, session: &mut Session) -> End {
        let now = Instant::now();
        let beat = self.beat();
        let mut clocks = Clocks {
            beat,
            beat_at: now + beat,
            commit_at: self.settings.auto_commit.map(|every| now + every),
        };
        loop {
            if let Err(end) = self.say_what_is_due(session) {
                return end;
            }
            let due = self.next_due(session, &clocks);
            let heard = tokio::select! {
                heard = session.next() => heard,
                () = sleep_until(due) => {
                    if let Err(end) = self.tick(session, &mut clocks) {
                        return end;
                    }
                    continue;
                }
                Some(command) = self.commands.recv() => {
                    self.note(command);
                    continue;
                }
                Some(resolved) = self.resolving.next(), if !self.resolving.is_empty() => {
                    if let Err(end) = self.resolved(resolved) {
                        return end;
                    }
                    continue;
                }
                Some(skipped) = self.skipped.recv() => {
                    self.listener.tell(&Rebalance::Skipped(skipped));
                    continue;
                }
                () = self.shared.attention.notified() => {
                    self.tell_unreadable();
                    continue;
                }
            };
            let outcome = match heard {
                Ok((heard, sent_at)) => {
                    if let Some(sent_at) = sent_at {
                        self.shared.heard(sent_at);
                    }
                    self.heard(heard)
                }
                Err(error) => Err(end_of(error.into())),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    fn beat(&self) -> Duration {
        let told = self.shared.state.lock().heartbeat;
        match told {
            Duration::ZERO => self.shared.session() / BEATS_IN_A_SESSION,
            beat => beat,
        }
    }

    fn next_due(&self, session: &Session, clocks: &Clocks) -> Instant {
        let revoked_until = self.shared.state.lock().revoked_until();
        let closing = self.closing.as_ref().map(|closing| closing.until);
        let others = [
            clocks.commit_at,
            session.overdue_at(),
            revoked_until,
            closing,
        ];
        let first = others.into_iter().flatten().min();
        first.map_or(clocks.beat_at, |first| first.min(clocks.beat_at))
    }

    /// Runs the tasks that are due.
    fn tick(&mut self, session: &mut Session, clocks: &mut Clocks) -> Result<(), End> {
        let now = Instant::now();
        if session.overdue_at().is_some_and(|overdue| now >= overdue) {
            return Err(broke(session.silent()));
        }
        if let Some(closing) = self.closing.as_mut().filter(|closing| now >= closing.until) {
            let slow = || Error::new(ErrorKind::Timeout, "the coordinator did not take the end");
            closing.error.get_or_insert_with(slow);
            return Err(End::Left);
        }
        if clocks.commit_at.is_some_and(|at| now >= at) {
            clocks.commit_at = self.settings.auto_commit.map(|every| now + every);
            self.commits.want(None);
        }
        if now >= clocks.beat_at {
            clocks.beat = self.beat();
            clocks.beat_at = now + clocks.beat;
            self.shared.state.lock().try_again();
            self.try_gone();
            self.leave_if_idle(now);
            if !session.awaits(|sent| matches!(sent, Sent::Heartbeat)) {
                session.send(Sent::Heartbeat).map_err(broke)?;
            }
        }
        Ok(())
    }

    /// Tries again to read partitions whose topic was gone, if the coordinator still assigns them.
    fn try_gone(&mut self) {
        let any = self.shared.state.lock().try_gone();
        if any {
            self.shared.change(|state| state.begin());
        }
    }

    /// Leaves the group if the application has stopped taking records, so that other members get its
    /// partitions.
    fn leave_if_idle(&mut self, now: Instant) {
        let mut state = self.shared.state.lock();
        if !state.has_waiting() {
            state.idle_since = now;
        }
        let idle = now.saturating_duration_since(state.idle_since);
        let outstanding = state.outstanding();
        drop(state);
        if idle >= self.settings.max_poll_interval {
            let message = format!(
                "consumer group {:?}: no record was taken for {idle:.1?} while some waited, and {outstanding} are not acknowledged, so the member has left; take records more often, or raise max_poll_interval",
                self.settings.group
            );
            self.close(true, None, Some(Error::new(ErrorKind::LeftGroup, message)));
        }
    }

    /// Sends all pending requests.
    fn say_what_is_due(&mut self, session: &mut Session) -> Result<(), End> {
        self.ask_where_to_begin();
        // A listener may have requested a commit of the partitions just revoked: it goes first.
        while let Ok(command) = self.commands.try_recv() {
            self.note(command);
        }
        let commits_itself = self.settings.auto_commit.is_some();
        if !session.awaits(|sent| matches!(sent, Sent::Commit(_))) {
            let failed = self.commits.ended();
            if let (Some(error), Some(closing)) = (failed, &mut self.closing) {
                closing.error.get_or_insert(error);
            }
            let which = match (self.commits.is_wanted(), commits_itself) {
                (true, _) => Which::All,
                (false, true) => Which::Due,
                (false, false) => Which::Starts,
            };
            let positions = {
                let mut state = self.shared.state.lock();
                if which == Which::All {
                    state.try_again();
                }
                state.to_commit(which)
            };
            self.commits.begun();
            for positions in positions.chunks(POSITIONS) {
                session
                    .send(Sent::Commit(positions.to_vec()))
                    .map_err(broke)?;
            }
            if positions.is_empty() {
                self.commits.ended();
            }
        }
        if !session.awaits(|sent| matches!(sent, Sent::Release(_))) {
            let places = self.shared.state.lock().give_up(commits_itself);
            if !places.is_empty() {
                session.send(Sent::Release(places)).map_err(broke)?;
            }
        }
        self.say_good_bye(session)
    }

    fn say_good_bye(&mut self, session: &mut Session) -> Result<(), End> {
        let Some(closing) = &self.closing else {
            return Ok(());
        };
        let busy = |sent: &Sent| matches!(sent, Sent::Commit(_) | Sent::Leave);
        if session.awaits(busy) {
            return Ok(());
        }
        if !closing.leave {
            return Err(End::Left);
        }
        session.send(Sent::Leave).map_err(broke)
    }

    /// Looks up the start offsets of partitions without a committed offset.
    fn ask_where_to_begin(&mut self) {
        let mut state = self.shared.state.lock();
        for (place, part) in &mut state.parts {
            if self.resolving.len() >= RESOLVING {
                return;
            }
            let Phase::Starting { asked, at: None } = &mut part.phase else {
                continue;
            };
            if std::mem::replace(asked, true) {
                continue;
            }
            let (inner, from) = (self.inner.clone(), self.settings.from);
            let (place, life, name) = (*place, part.life, part.name.clone());
            let asking = async move {
                let of = PartitionId::new(&name.topic, place.topic_id, name.partition);
                let found = inner.place(of, from).await;
                (place, life, found.map(|(_, offset)| offset))
            };
            self.resolving.push(asking.boxed());
        }
    }

    fn resolved(&mut self, (place, life, found): Resolved) -> Result<(), End> {
        let mut state = self.shared.state.lock();
        let part = state.parts.get_mut(&place).filter(|part| part.life == life);
        let Some(part) = part else {
            return Ok(());
        };
        let Phase::Starting { asked, at } = &mut part.phase else {
            return Ok(());
        };
        match found {
            Ok(offset) => *at = Some(offset),
            Err(error) if error.is_retryable() || error.says_topic_is_gone() => {
                match error.says_topic_is_gone() {
                    true => part.phase = Phase::Gone,
                    false => *asked = false,
                }
                let told = Rebalance::Unreadable(part.name.clone(), error);
                drop(state);
                self.listener.tell(&told);
            }
            Err(error) => return Err(End::Fatal(error)),
        }
        Ok(())
    }

    fn tell_unreadable(&mut self) {
        let told: Vec<(TopicPartition, Error)> = {
            let mut state = self.shared.state.lock();
            let unreadable = std::mem::take(&mut state.unreadable).into_iter();
            let named = unreadable.filter_map(|(place, error)| {
                let part = state.parts.get(&place)?;
                Some((part.name.clone(), error))
            });
            named.collect()
        };
        for (partition, error) in told {
            tracing::warn!(group = self.settings.group, %partition, %error, "a partition can't be read");
            self.listener.tell(&Rebalance::Unreadable(partition, error));
        }
    }
}

fn broke(error: Error) -> End {
    End::Broke(error.into())
}
