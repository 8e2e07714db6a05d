//! The leader epochs of offsets. A leader epoch is a Raft term.

use std::collections::VecDeque;

use super::keys::{Epoch, Key, StateWrites, damaged};
use crate::machine::MachineError;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Epochs {
    starts: VecDeque<Epoch>,
}

impl Epochs {
    /// Records the term of an entry.
    ///
    /// # Errors
    /// `Damaged` if an earlier entry has a later term.
    pub(super) fn observe(
        &mut self,
        term: u64,
        next_offset: u64,
        effects: &mut StateWrites,
    ) -> Result<(), MachineError> {
        let latest = self.latest();
        if term < latest {
            return Err(damaged(format!(
                "entry of term {term} follows an entry of term {latest}"
            )));
        }
        if term > latest {
            let epoch = Epoch {
                term,
                start_offset: next_offset,
            };
            effects.put(Key::Epoch(term), &epoch);
            self.starts.push_back(epoch);
        }
        Ok(())
    }

    /// Term of the latest entry; 0 before the first.
    pub(super) fn latest(&self) -> u64 {
        self.starts.back().map_or(0, |epoch| epoch.term)
    }

    pub(super) fn last(&self) -> Option<&Epoch> {
        self.starts.back()
    }

    /// Drops the epochs whose offsets are all below `log_start`.
    pub(super) fn forget(&mut self, log_start: u64, effects: &mut StateWrites) {
        while self
            .starts
            .get(1)
            .is_some_and(|next| next.start_offset <= log_start)
        {
            if let Some(gone) = self.starts.pop_front() {
                effects.remove(Key::Epoch(gone.term));
            }
        }
    }

    /// Returns the epoch in which an offset was, or will be, assigned; 0 if it is no longer known.
    pub(super) fn of(&self, offset: u64) -> u64 {
        let behind = self
            .starts
            .partition_point(|epoch| epoch.start_offset <= offset);
        let last = behind
            .checked_sub(1)
            .and_then(|position| self.starts.get(position));
        last.map_or(0, |epoch| epoch.term)
    }

    pub(super) fn load(&mut self, epoch: Epoch) -> Result<(), MachineError> {
        if self
            .starts
            .back()
            .is_some_and(|last| last.term >= epoch.term)
        {
            return Err(damaged(format!("{epoch:?} does not follow the last one")));
        }
        self.starts.push_back(epoch);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_an_earlier_term_is_damage_and_changes_nothing() {
        let mut epochs = Epochs::default();
        epochs.observe(3, 0, &mut StateWrites::default()).unwrap();
        let before = epochs.clone();
        let observed = epochs.observe(2, 5, &mut StateWrites::default());
        assert!(matches!(observed, Err(MachineError::Damaged(_))));
        assert_eq!(epochs, before);
    }

    #[test]
    fn an_offset_belongs_to_the_leader_that_gave_it_out() {
        let mut epochs = Epochs::default();
        for (term, next_offset) in [(1, 0), (1, 5), (3, 10), (4, 10), (7, 20)] {
            let observed = epochs.observe(term, next_offset, &mut StateWrites::default());
            observed.unwrap();
        }
        let of: Vec<u64> = [0, 9, 10, 19, 20, 99]
            .iter()
            .map(|&offset| epochs.of(offset))
            .collect();
        assert_eq!(of, [1, 1, 4, 4, 7, 7]);
        epochs.forget(12, &mut StateWrites::default());
        assert_eq!((epochs.of(9), epochs.of(12), epochs.of(20)), (0, 4, 7));
    }
}
