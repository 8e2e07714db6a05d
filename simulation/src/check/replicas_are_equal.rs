//! In the end all replicas of a partition are equal: their logs hold the same bytes where they overlap, and
//! their states have applied the same entries.

use std::collections::BTreeMap;

use ropewalk_proto::ids::GroupId;

use super::{Check, Seen};
use crate::observe::committed_model::CommittedModel;
use crate::observe::{Image, Look, Replica};

/// The check.
#[derive(Debug)]
pub struct ReplicasAreEqual;

impl Check for ReplicasAreEqual {
    fn name(&self) -> &'static str {
        "replicas-are-equal"
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        match first_difference(seen.look, seen.truth) {
            Some(what) => Err(what),
            None => Ok(()),
        }
    }
}

/// First difference between two voters of one group.
pub fn first_difference(look: &Look, truth: &CommittedModel) -> Option<String> {
    let mut groups: BTreeMap<GroupId, Vec<&Replica>> = BTreeMap::new();
    for replica in look.of(Image::Live) {
        let group = truth.group(replica.seen.group);
        let voters = group.and_then(|group| group.voters.last_key_value());
        let left = voters.is_some_and(|(_, sets)| {
            let mut sets = sets.iter();
            !sets.any(|set| set.contains(&replica.seen.replica))
        });
        if !left {
            groups.entry(replica.seen.group).or_default().push(replica);
        }
    }
    let mut differences = groups.values().filter_map(|replicas| {
        let one = replicas.first()?;
        let mut others = replicas.iter().skip(1);
        others.find_map(|other| difference(one, other))
    });
    differences.next()
}

fn difference(one: &Replica, other: &Replica) -> Option<String> {
    let differ = |what: String| Some(format!("{} and {} {what}", one.name(), other.name()));
    if (one.seen.applied, one.seen.last) != (other.seen.applied, other.seen.last) {
        return differ(format!(
            "stand at {:?} and {:?}, with logs up to {:?} and {:?}",
            one.seen.applied, other.seen.applied, one.seen.last, other.seen.last
        ));
    }
    if let (Some(state), Some(other)) = (&one.state, &other.state) {
        let (state, other) = (
            (state.next_offset, state.log_start),
            (other.next_offset, other.log_start),
        );
        if state != other {
            return differ(format!("have states {state:?} and {other:?}"));
        }
    }
    if !one.seen.damaged.is_empty() || !other.seen.damaged.is_empty() {
        // Damage that no one has read is not found by a look at other replicas.
        return None;
    }
    // Compared from the end of the log, since the purged parts differ.
    let entries = one.seen.entries.iter().rev();
    let mut both = entries.zip(other.seen.entries.iter().rev());
    let (own, others) = both.find(|(own, others)| own != others)?;
    differ(format!("hold {:?} and {:?}", own.place, others.place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{Story, blank, entry, place, replica, state};

    fn judge(one: Replica, other: Replica) -> Result<(), String> {
        let mut story = Story::default();
        story.look.replicas = vec![one, other];
        story.end(&mut ReplicasAreEqual)
    }

    fn whole(id: u64) -> Replica {
        replica(id, |seen| {
            seen.entries = vec![blank(1, 0), entry(1, 1, 7)];
            seen.applied = place(1, 1);
        })
    }

    #[test]
    fn replicas_that_differ_only_in_what_is_purged_are_equal() {
        assert_eq!(judge(whole(1), whole(2)), Ok(()));
        let mut purged = whole(2);
        purged.seen.purged = place(1, 0);
        purged.seen.entries.remove(0);
        assert_eq!(judge(whole(1), purged), Ok(()));
    }

    #[test]
    fn replicas_that_differ_are_found() {
        let mut short = whole(2);
        short.seen.entries.pop();
        short.seen.last = place(1, 0);
        assert!(judge(whole(1), short).is_err());
        let mut other = whole(2);
        other.seen.entries[1] = entry(1, 1, 8);
        assert!(judge(whole(1), other).is_err());
        let (mut one, mut other) = (whole(1), whole(2));
        one.state = Some(state(3));
        other.state = Some(state(4));
        assert!(judge(one, other).is_err());
    }
}
