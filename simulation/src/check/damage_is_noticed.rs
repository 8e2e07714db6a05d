//! Damage is noticed: a replica that runs on a damaged disk still has its synced entries. The exchange of a
//! disk is exempt. A replica that came back with fewer entries, unaware of the loss, would vote and count as
//! if it had all of them.

use std::collections::BTreeMap;

use ropewalk_proto::ids::ReplicaId;

use super::{Check, Now};
use crate::observe::Image;

/// The check.
#[derive(Debug, Default)]
pub struct DamageIsNoticed {
    /// Highest index that each replica durably knew to be committed.
    known: BTreeMap<ReplicaId, u64>,
}

impl Check for DamageIsNoticed {
    fn name(&self) -> &'static str {
        "damage-is-noticed"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for replica in &now.look.replicas {
            let seen = &replica.seen;
            let Some(index) = seen.committed_index() else {
                continue;
            };
            let known = self.known.get(&seen.replica).copied().unwrap_or_default();
            let noticed = seen.quarantined || !seen.damaged.is_empty();
            if index < known && !noticed {
                return Err(format!(
                    "{} knew its log to be committed up to {known}, and now only up to {index}",
                    replica.name()
                ));
            }
            if replica.image == Image::Durable {
                self.known.insert(seen.replica, known.max(index));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{Story, durable, place, replica};

    fn story(then: u64, noticed: bool) -> Result<(), String> {
        let mut check = DamageIsNoticed::default();
        let mut story = Story::default();
        story.look.replicas = vec![durable(replica(1, |seen| seen.committed = place(1, 5)))];
        story.look(&mut check)?;
        let mut later = replica(1, |seen| {
            seen.committed = place(1, then);
            seen.quarantined = noticed;
        });
        later.on_damaged_disk = true;
        story.look.replicas = vec![later];
        story.look(&mut check)
    }

    #[test]
    fn a_replica_that_goes_on_or_stays_out_passes() {
        assert_eq!(story(6, false), Ok(()));
        assert_eq!(story(3, true), Ok(()));
    }

    #[test]
    fn a_replica_that_runs_on_with_less_than_was_synced_is_found() {
        assert!(story(3, false).is_err());
    }
}
