//! A replica id is used once: a replica that was removed from its group never votes again. Its node deletes
//! its data as soon as it learns of the removal. A leader that adds it again counts on a copy that may be
//! gone in a moment.

use std::collections::{BTreeMap, BTreeSet};

use ropewalk_proto::ids::{GroupId, ReplicaId};

use super::{Check, Now};
use crate::observe::committed_model::Group;
use crate::observe::disk_reader::METADATA;

/// The check.
#[derive(Debug, Default)]
pub struct IdsAreUsedOnce {
    groups: BTreeMap<GroupId, Voted>,
}

#[derive(Debug, Default)]
struct Voted {
    /// First log index that was not looked at yet.
    next_index: u64,
    now: BTreeSet<ReplicaId>,
    before: BTreeSet<ReplicaId>,
}

impl Check for IdsAreUsedOnce {
    fn name(&self) -> &'static str {
        "ids-are-used-once"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        // The metadata group chooses its voters again among its members as members come and go.
        for (id, group) in now.truth.groups().filter(|(id, _)| *id != METADATA) {
            let voted = self.groups.entry(id).or_default();
            voted
                .go_on(group)
                .map_err(|what| format!("group {id}: {what}"))?;
        }
        Ok(())
    }
}

impl Voted {
    fn go_on(&mut self, group: &Group) -> Result<(), String> {
        for (index, sets) in group.voters.range(self.next_index..) {
            let now: BTreeSet<ReplicaId> = sets.iter().flatten().copied().collect();
            if let Some(replica) = now.intersection(&self.before).next() {
                return Err(format!(
                    "replica {replica} was let go, and votes again from log index {index} on, in {sets:?}"
                ));
            }
            self.before.extend(self.now.difference(&now));
            self.now = now;
            self.next_index = index + 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{Story, place, replica, voters};

    fn story(log: &[&[u64]]) -> Result<(), String> {
        let mut check = IdsAreUsedOnce::default();
        let mut story = Story::default();
        for (index, ids) in (0..).zip(log) {
            let one = replica(1, |seen| {
                seen.entries = vec![voters(1, index, ids)];
                seen.committed = place(1, index);
            });
            story.look.replicas = vec![one];
            story.learn();
            story.look(&mut check)?;
        }
        Ok(())
    }

    #[test]
    fn voters_that_come_and_go_pass() {
        let moved: [&[u64]; 4] = [&[1, 2, 3], &[1, 2, 3, 4], &[1, 2, 4], &[1, 4, 5]];
        assert_eq!(story(&moved), Ok(()));
    }

    #[test]
    fn one_that_comes_back_is_found() {
        let judged = story(&[&[1, 2, 3], &[1, 2, 4], &[1, 2, 3]]);
        assert!(judged.is_err_and(|what| what.contains("replica 3")));
    }
}
