//! A producer's batch gets offsets once. The same (producer, epoch, sequence) is accepted at one place only,
//! through checkpoints, restarts and leader changes. Accepted batches of one producer and epoch have no gap.

use std::collections::BTreeMap;

use ropewalk_proto::batch::BatchView;
use ropewalk_proto::ids::GroupId;
use ropewalk_raft_store::inspect::Payload;

use super::{Check, Now};

/// The check.
#[derive(Debug, Default)]
pub struct SequencesAreUnique {
    /// Epoch and next sequence of each producer in each group.
    next: BTreeMap<(GroupId, i64), (i16, i32)>,
}

impl Check for SequencesAreUnique {
    fn name(&self) -> &'static str {
        "sequences-are-unique"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for one in now.fresh {
            if one.after_a_gap {
                self.next.retain(|(group, _), _| *group != one.group);
            }
            let Payload::Command(command) = &one.entry.payload else {
                continue;
            };
            let Some((_, batch)) = command.as_append() else {
                continue;
            };
            let (Some(base_offset), Ok(batch)) =
                (one.base_offset, BatchView::trusted(batch.clone()))
            else {
                continue;
            };
            if batch.producer_id() < 0 {
                continue;
            }
            let producer = (one.group, batch.producer_id());
            let (epoch, first) = (batch.producer_epoch(), batch.base_sequence());
            let after = (
                epoch,
                first.wrapping_add(batch.last_offset_delta() + 1) & i32::MAX,
            );
            let before = self.next.insert(producer, after);
            let follows = match before {
                None => true,
                Some((known, next)) => epoch > known || (epoch, first) == (known, next),
            };
            if !follows {
                return Err(format!(
                    "group {} ({:?}), log index {}: a batch of producer {}, epoch {epoch}, sequence {first} got offset {base_offset}; (epoch, sequence) {before:?} was to come",
                    one.group, one.place, one.entry.place.index, producer.1
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{Story, committed_of};

    fn judge(batches: &[(i64, i16, i32)]) -> Result<(), String> {
        let mut story = Story::default();
        let batches = batches.iter();
        story.fresh = batches
            .map(|(id, epoch, sequence)| committed_of(*id, *epoch, *sequence))
            .collect();
        story.look(&mut SequencesAreUnique::default())
    }

    #[test]
    fn sequences_that_go_on_or_begin_anew_in_a_later_epoch_pass() {
        assert_eq!(judge(&[(1, 0, 0), (2, 0, 0), (1, 0, 1), (1, 1, 0)]), Ok(()));
        assert_eq!(judge(&[(-1, -1, -1), (-1, -1, -1)]), Ok(()));
    }

    #[test]
    fn a_batch_that_is_accepted_twice_is_found() {
        assert!(judge(&[(1, 0, 0), (1, 0, 0)]).is_err());
        assert!(judge(&[(1, 0, 0), (1, 0, 1), (1, 0, 0)]).is_err());
    }

    #[test]
    fn a_gap_and_an_old_epoch_are_found() {
        assert!(judge(&[(1, 0, 0), (1, 0, 2)]).is_err());
        assert!(judge(&[(1, 1, 0), (1, 0, 1)]).is_err());
    }
}
