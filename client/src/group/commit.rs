//! Commits and their waiters. At most one commit is in flight; later requests go with the next one.

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// Channel for the outcome of a commit.
pub(super) type Waiter = oneshot::Sender<Result<()>>;

/// The commits of a member.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// The next commit includes all positions that have changed, not only those that are due.
    wanted: bool,
    /// Waiters of the next commit.
    waiting: Vec<Waiter>,
    /// Waiters of the commit in flight.
    under_way: Vec<Waiter>,
    /// The commit in flight includes all positions that had changed.
    all_under_way: bool,
    /// First refusal within the commit in flight.
    failed: Option<Error>,
}

impl Commits {
    /// Requests a commit of all positions.
    pub fn want(&mut self, waiter: Option<Waiter>) {
        self.wanted = true;
        // A closed waiter needs no answer, and must not accumulate while there is no coordinator.
        self.waiting.retain(|waiter| !waiter.is_closed());
        self.waiting.extend(waiter);
    }

    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Records that the next commit is in flight, with all that was requested.
    pub fn begun(&mut self) {
        self.all_under_way = std::mem::take(&mut self.wanted);
        self.under_way.append(&mut self.waiting);
    }

    /// Records that a part of the commit in flight was refused.
    pub fn refused(&mut self, error: Error) {
        self.failed.get_or_insert(error);
    }

    /// Ends the commit in flight, once all parts are answered. Returns its first refusal.
    pub fn ended(&mut self) -> Option<Error> {
        self.all_under_way = false;
        let failed = self.failed.take();
        for waiter in self.under_way.drain(..) {
            // The waiter may be gone.
            let _ = waiter.send(failed.clone().map_or(Ok(()), Err));
        }
        failed
    }

    /// Returns the commit in flight to the queue: its outcome is unknown, so the next one repeats it.
    pub fn lost(&mut self) {
        self.wanted |= std::mem::take(&mut self.all_under_way);
        self.waiting.append(&mut self.under_way);
        self.failed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_while_a_commit_is_on_its_way_waits_for_the_next() {
        let mut commits = Commits::default();
        let (first, mut first_hears) = oneshot::channel();
        let (second, mut second_hears) = oneshot::channel();
        commits.want(Some(first));
        commits.begun();
        commits.want(Some(second));
        assert_eq!(commits.ended(), None);
        assert!(first_hears.try_recv().unwrap().is_ok());
        assert!(second_hears.try_recv().is_err(), "not yet");
        assert!(commits.is_wanted());
    }

    #[test]
    fn a_last_commit_nobody_waits_for_is_made_again_too() {
        let mut commits = Commits::default();
        commits.want(None);
        commits.begun();
        assert!(!commits.is_wanted());
        commits.lost();
        assert!(commits.is_wanted());
        commits.begun();
        assert_eq!(commits.ended(), None);
        commits.lost();
        assert!(!commits.is_wanted(), "it was answered");
    }

    #[test]
    fn the_first_refusal_is_what_those_hear_who_wait_for_the_commit() {
        let mut commits = Commits::default();
        let (waiter, mut hears) = oneshot::channel();
        commits.want(Some(waiter));
        commits.begun();
        commits.refused(Error::invalid("first"));
        commits.refused(Error::invalid("second"));
        assert_eq!(commits.ended(), Some(Error::invalid("first")));
        let heard = hears.try_recv().unwrap();
        assert_eq!(heard, Err(Error::invalid("first")));
        commits.begun();
        assert_eq!(commits.ended(), None);
    }

    #[test]
    fn a_commit_whose_answer_is_lost_is_made_again_for_those_who_wait() {
        let mut commits = Commits::default();
        let (waiter, mut hears) = oneshot::channel();
        commits.want(Some(waiter));
        commits.begun();
        commits.refused(Error::invalid("refused, and then the stream broke"));
        commits.lost();
        assert!(commits.is_wanted() && hears.try_recv().is_err());
        commits.begun();
        assert_eq!(commits.ended(), None);
        assert!(hears.try_recv().unwrap().is_ok());
    }
}
