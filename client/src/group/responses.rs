//! Handling of the coordinator's messages by a member.

use ropewalk_proto::error::{ErrorCode, Retry, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::group_response::Kind as Answer;

use super::assigned_partition::{Phase, Position};
use super::member::Member;
use super::session::{Heard, Refused, Sent};
use super::settings::{End, end_of};
use crate::error::Error;

impl Member {
    /// Handles one message: carries out an assignment, or records the outcome of a request.
    pub(super) fn heard(&mut self, heard: Heard) -> Result<(), End> {
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
                // The coordinator no longer counts them as this member's, so they are released either way.
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
        for position in positions {
            let mut of_this = refused.iter().filter(|refused| {
                refused.topic_id == position.place.topic_id
                    && refused.partition == position.place.partition
            });
            match of_this.next() {
                Some(refused) => self.position_refused(position, why(position, refused))?,
                None => self.shared.state.lock().committed(position, false),
            }
        }
        self.shared.change(|state| state.begin());
        Ok(())
    }

    fn position_refused(&mut self, position: &Position, error: Error) -> Result<(), End> {
        tracing::warn!(group = self.settings.group, %error, "a position was refused");
        let mut state = self.shared.state.lock();
        state.committed(position, true);
        let part = state.parts.get(&position.place);
        let starts = part.is_some_and(|part| matches!(part.phase, Phase::Starting { .. }));
        drop(state);
        // If another member owns the partition, this member is about to lose it.
        let taken = error.code() == Some(ErrorCode::NotOwner);
        if starts && !taken && !error.is_retryable() {
            return Err(End::Fatal(error));
        }
        self.commits.refused(error);
        Ok(())
    }

    /// Handles the refusal of a whole commit.
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
        self.commits.refused(refused.error);
        Ok(())
    }
}

fn why(position: &Position, refused: &v1::PositionError) -> Error {
    let error = refused.error.clone().unwrap_or_default();
    let error: Error = WireError::from(error).into();
    error.context(format_args!(
        "committing offset {} of partition {} of topic {}",
        position.offset, position.place.partition, position.place.topic_id
    ))
}
