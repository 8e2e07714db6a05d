//! Each epoch of a producer is given out once: of two instances that take over the same producer, one fences
//! the other.

use std::collections::BTreeSet;

use super::{Check, Now};
use crate::history::Event;

/// The check.
#[derive(Debug, Default)]
pub struct EpochsAreGivenOnce {
    /// Ids and epochs that were given out.
    given: BTreeSet<(u64, u32)>,
}

impl Check for EpochsAreGivenOnce {
    fn name(&self) -> &'static str {
        "epochs-are-given-once"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for (_, event) in now.news {
            let Event::Epoch { producer, epoch } = event else {
                continue;
            };
            if !self.given.insert((*producer, *epoch)) {
                return Err(format!(
                    "producer {producer} was given epoch {epoch} twice: two instances of it write side by side"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::Story;

    fn judge(given: &[(u64, u32)]) -> Result<(), String> {
        let events = given
            .iter()
            .map(|&(producer, epoch)| Event::Epoch { producer, epoch });
        let events: Vec<Event> = events.collect();
        Story::of(events).look(&mut EpochsAreGivenOnce::default())
    }

    #[test]
    fn epochs_that_follow_each_other_pass() {
        assert_eq!(judge(&[(1, 0), (2, 0), (1, 1), (1, 2)]), Ok(()));
    }

    #[test]
    fn an_epoch_that_two_were_given_is_found() {
        assert!(judge(&[(1, 0), (1, 1), (1, 1)]).is_err());
    }
}
