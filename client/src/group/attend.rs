//! One session of a member: what it says to the coordinator and when, and what it makes of answers.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use ropewalk_proto::error::{ErrorCode, Retry, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::group_response::Kind as Answer;
use tokio::time::{Instant, sleep_until};

use super::member::{End, Member, Resolved, end_of};
use super::part::{Phase, Position, Which};
use super::rebalance::Rebalance;
use super::session::{Heard, Refused, Sent, Session};
use crate::error::{Error, ErrorKind};

/// So many partitions are asked at a time where they begin.
const RESOLVING: usize = 16;
/// What a coordinator that names no interval for heartbeats gets, as a part of the session.
const BEATS_IN_A_SESSION: u32 = 3;

/// When the next things are due that come by the clock.
struct Clocks {
    beat: Duration,
    beat_at: Instant,
    commit_at: Option<Instant>,
}

impl Member {
    /// Stays in the session until it ends.
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
        match self.shared.state.lock().heartbeat {
            Duration::ZERO => self.settings.session / BEATS_IN_A_SESSION,
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

    /// What comes by the clock.
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
            self.leave_if_idle(now);
            if !session.awaits(|sent| matches!(sent, Sent::Heartbeat)) {
                session.send(Sent::Heartbeat).map_err(broke)?;
            }
        }
        Ok(())
    }

    /// An application that takes nothing any more must not keep its partitions from others.
    fn leave_if_idle(&mut self, now: Instant) {
        let mut state = self.shared.state.lock();
        if !state.has_waiting() {
            state.idle_since = now;
        }
        let idle = now.saturating_duration_since(state.idle_since);
        let outstanding = state.outstanding();
        drop(state);
        if idle >= self.settings.max_poll {
            let message = format!(
                "consumer group {:?}: no record was taken for {idle:?} while some waited, and {outstanding} are out and not done, so the member has left; take records more often, or raise max_poll",
                self.settings.group
            );
            self.close(true, None, Some(Error::new(ErrorKind::LeftGroup, message)));
        }
    }

    /// Says whatever there is to say and has not been said.
    fn say_what_is_due(&mut self, session: &mut Session) -> Result<(), End> {
        self.ask_where_to_begin();
        let commits_itself = self.settings.auto_commit.is_some();
        if !session.awaits(|sent| matches!(sent, Sent::Commit(_))) {
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
            if positions.is_empty() {
                self.commits.ended(&Ok(()));
            } else {
                session.send(Sent::Commit(positions)).map_err(broke)?;
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

    fn heard(&mut self, heard: Heard) -> Result<(), End> {
        match heard {
            Heard::Assignment(assignment) => {
                self.assigned(assignment);
                Ok(())
            }
            Heard::End(refused) => Err(end_of(refused)),
            Heard::Answer(Sent::Leave, _) => Err(End::Left),
            Heard::Answer(Sent::Heartbeat, Err(refused)) => Err(end_of(refused)),
            Heard::Answer(Sent::Commit(positions), answer) => self.committed(&positions, answer),
            Heard::Answer(Sent::Release(places), Ok(_)) => {
                self.shared.state.lock().released(&places);
                Ok(())
            }
            Heard::Answer(Sent::Release(places), Err(refused)) => match end_of(refused) {
                // The coordinator does not count them as this member's: that is as well.
                End::Fatal(error) => {
                    tracing::debug!(%error, "a release was refused");
                    self.shared.state.lock().released(&places);
                    Ok(())
                }
                end => Err(end),
            },
            Heard::Answer(Sent::Heartbeat, Ok(_)) => Ok(()),
        }
    }

    fn committed(
        &mut self,
        positions: &[Position],
        answer: Result<Option<Answer>, Refused>,
    ) -> Result<(), End> {
        let refused = match answer {
            Ok(Some(Answer::Committed(committed))) => committed.refused,
            Ok(_) => Vec::new(),
            Err(refused) => return self.commit_failed(positions, refused),
        };
        let mut first = Ok(());
        let mut fatal = None;
        for position in positions {
            let mut of_this = refused.iter().filter(|refused| {
                refused.topic_id == position.place.topic_id
                    && refused.partition == position.place.partition
            });
            let error = of_this.next().map(|refused| why(position, refused));
            let mut state = self.shared.state.lock();
            state.committed(position, error.is_some());
            let Some(error) = error else {
                continue;
            };
            tracing::warn!(group = self.settings.group, %error, "a position was refused");
            let part = state.parts.get(&position.place);
            let starts = part.is_some_and(|part| matches!(part.phase, Phase::Starting { .. }));
            // One that is not this member's any more is about to be taken from it.
            let taken = error.code() == Some(ErrorCode::NotOwner);
            if starts && !taken && !error.is_retryable() {
                fatal = Some(error.clone());
            }
            if first.is_ok() {
                first = Err(error);
            }
        }
        if let (Err(error), Some(closing)) = (&first, &mut self.closing) {
            closing.error.get_or_insert_with(|| error.clone());
        }
        self.commits.ended(&first);
        self.shared.change(|state| state.begin());
        fatal.map_or(Ok(()), |error| Err(End::Fatal(error)))
    }

    /// The coordinator took none of the positions.
    fn commit_failed(&mut self, positions: &[Position], refused: Refused) -> Result<(), End> {
        let retry = refused.error.code().map(ErrorCode::retry);
        let unknown = refused.error.code() == Some(ErrorCode::UnknownMember);
        if unknown || !matches!(retry, Some(Retry::Never | Retry::Later)) {
            return Err(end_of(refused));
        }
        tracing::warn!(group = self.settings.group, error = %refused.error, "a commit failed");
        let mut state = self.shared.state.lock();
        for position in positions {
            state.committed(position, true);
        }
        drop(state);
        if let Some(closing) = &mut self.closing {
            closing.error.get_or_insert_with(|| refused.error.clone());
        }
        self.commits.ended(&Err(refused.error));
        Ok(())
    }

    /// Looks up where partitions begin in which the group has no position.
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
            let (inner, start_at) = (self.inner.clone(), self.settings.start_at);
            let (place, life, name) = (*place, part.life, part.name.clone());
            let asking = async move {
                let found = inner.offset(&name.topic, name.partition, start_at).await;
                (place, life, found)
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
            Err(error) if error.is_retryable() => {
                *asked = false;
                let told = Rebalance::Unreadable(part.name.clone(), error);
                drop(state);
                self.listener.tell(&told);
            }
            Err(error) => return Err(End::Fatal(error)),
        }
        Ok(())
    }

    fn tell_unreadable(&mut self) {
        let told: Vec<Rebalance> = {
            let mut state = self.shared.state.lock();
            let unreadable = std::mem::take(&mut state.unreadable).into_iter();
            let named = unreadable.filter_map(|(place, error)| {
                let part = state.parts.get(&place)?;
                Some(Rebalance::Unreadable(part.name.clone(), error))
            });
            named.collect()
        };
        for told in told {
            tracing::warn!(
                group = self.settings.group,
                ?told,
                "a partition can't be read"
            );
            self.listener.tell(&told);
        }
    }
}

fn broke(error: Error) -> End {
    End::Broke(error.into())
}

fn why(position: &Position, refused: &v1::PositionError) -> Error {
    let error = refused.error.clone().unwrap_or_default();
    let error: Error = WireError::from(error).into();
    error.context(format_args!(
        "committing offset {} of partition {} of topic {}",
        position.offset, position.place.partition, position.place.topic_id
    ))
}
