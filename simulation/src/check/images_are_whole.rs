//! A replica can continue from every image. Its state is not ahead of its log. Its log begins where it was
//! purged and has no gap, and a checkpoint covers the purged part.

use super::{Check, Now};
use crate::observe::Replica;

/// The check.
#[derive(Debug)]
pub struct ImagesAreWhole;

impl Check for ImagesAreWhole {
    fn name(&self) -> &'static str {
        "images-are-whole"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for replica in &now.look.replicas {
            // Damage is found when it is read; other checks judge that.
            if replica.seen.damaged.is_empty() && replica.losses == 0 {
                whole(replica).map_err(|what| format!("{}: {what}", replica.name()))?;
            }
        }
        Ok(())
    }
}

fn whole(replica: &Replica) -> Result<(), String> {
    let seen = &replica.seen;
    if seen.applied > seen.last {
        return Err(format!(
            "the state is that of {:?}, and the log ends at {:?}",
            seen.applied, seen.last
        ));
    }
    if let Some(purged) = seen.purged
        && !seen.checkpoints.iter().any(|index| *index >= purged.index)
    {
        return Err(format!(
            "the log is purged up to {purged:?}, and there are only the checkpoints {:?}",
            seen.checkpoints
        ));
    }
    let first = seen.purged.map_or(0, |purged| purged.index + 1);
    let first = first.max(seen.from_index);
    let last = seen.last.map_or(first, |last| last.index + 1);
    let indexes = seen.entries.iter().map(|entry| entry.place.index);
    if indexes.clone().ne(first..last.max(first)) {
        return Err(format!(
            "the log should hold {first} up to but not including {last}, and holds {:?}",
            indexes.collect::<Vec<_>>()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ropewalk_raft_store::inspect::Inspection;

    use super::*;
    use crate::check::fixtures::{Story, blank, place, replica};

    fn judge(make: impl FnOnce(&mut Inspection)) -> Result<(), String> {
        let mut story = Story::default();
        story.look.replicas = vec![replica(1, make)];
        story.look(&mut ImagesAreWhole)
    }

    #[test]
    fn logs_that_go_with_their_states_are_whole() {
        assert_eq!(judge(|_| {}), Ok(()));
        let kept = judge(|seen| {
            seen.entries = vec![blank(1, 0), blank(1, 1)];
            seen.applied = place(1, 1);
        });
        assert_eq!(kept, Ok(()));
        let purged = judge(|seen| {
            seen.purged = place(1, 4);
            seen.checkpoints = vec![4];
            seen.entries = vec![blank(1, 5)];
        });
        assert_eq!(purged, Ok(()));
    }

    #[test]
    fn a_state_ahead_of_its_log_is_found() {
        let ahead = judge(|seen| {
            seen.entries = vec![blank(1, 0)];
            seen.applied = place(1, 1);
        });
        assert!(ahead.is_err());
    }

    #[test]
    fn a_purge_beyond_the_checkpoint_is_found() {
        let beyond = judge(|seen| {
            seen.purged = place(1, 4);
            seen.checkpoints = vec![3];
        });
        assert!(beyond.is_err());
    }

    #[test]
    fn a_gap_in_a_log_is_found() {
        assert!(judge(|seen| seen.entries = vec![blank(1, 0), blank(1, 2)]).is_err());
        assert!(judge(|seen| seen.entries = vec![blank(1, 1)]).is_err());
    }
}
