//! Pauses after failures.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(25);
const LONGEST: Duration = Duration::from_millis(500);

/// The pauses after the first failure, the second, and so on, without end.
pub(super) fn pauses() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST), |pause| Some((*pause * 2).min(LONGEST)))
}

/// A pause that doubles with every failure, until a success.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    why: String,
    pause: Duration,
    until: Instant,
}

impl Backoff {
    /// Records a failure and starts the next, longer pause.
    pub(super) fn failed(&mut self, why: String) {
        let pause = match &self.failure {
            Some(last) => (last.pause * 2).min(LONGEST),
            None => FIRST,
        };
        let until = Instant::now() + pause;
        self.failure = Some(Failure { why, pause, until });
    }

    /// Records a success: the next pause is a short one.
    pub(super) fn succeeded(&mut self) {
        self.failure = None;
    }

    /// The last failure, while its pause lasts; `None` if an attempt may be made now.
    pub(super) fn refusal(&self) -> Option<&str> {
        let failure = self.failure.as_ref()?;
        (Instant::now() < failure.until).then_some(&failure.why)
    }

    /// The last failure, if nothing has succeeded since.
    pub(super) fn last_failure(&self) -> Option<&str> {
        Some(&self.failure.as_ref()?.why)
    }

    /// True if the last failure is too old to predict the next attempt.
    pub(super) fn is_stale(&self) -> bool {
        let stale = |failure: &Failure| Instant::now() >= failure.until + LONGEST * 10;
        self.failure.as_ref().is_some_and(stale)
    }
}
