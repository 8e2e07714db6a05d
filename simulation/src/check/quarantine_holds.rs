//! A replica that was found damaged and marked takes part in nothing any longer. It neither votes nor
//! appends, however often its node starts: it could promise again what it has forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use ropewalk_proto::ids::ReplicaId;
use ropewalk_raft_store::inspect::{CastVote, LogPlace};

use super::{Check, Now};
use crate::observe::{Image, Replica};

/// Time after which all work that was under way at the mark has ended.
const ENDED_WITHIN: Duration = Duration::from_secs(2);

/// The check.
#[derive(Debug, Default)]
pub struct QuarantineHolds {
    marked: BTreeMap<ReplicaId, Marked>,
}

#[derive(Debug)]
struct Marked {
    since: Duration,
    setbacks: u64,
    held: Option<Held>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    vote: Option<CastVote>,
    last: Option<LogPlace>,
}

impl Check for QuarantineHolds {
    fn name(&self) -> &'static str {
        "quarantine-holds"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for replica in now.look.of(Image::Live) {
            let id = replica.seen.replica;
            if !replica.seen.quarantined {
                self.marked.remove(&id);
                continue;
            }
            let fresh = || Marked {
                since: now.look.at,
                setbacks: replica.setbacks,
                held: None,
            };
            let marked = self.marked.entry(id).or_insert_with(fresh);
            if marked.setbacks != replica.setbacks {
                *marked = fresh();
            }
            if now.look.at < marked.since + ENDED_WITHIN {
                continue;
            }
            judge(replica, marked)?;
        }
        Ok(())
    }
}

fn judge(replica: &Replica, marked: &mut Marked) -> Result<(), String> {
    let seen = &replica.seen;
    let held = *marked.held.get_or_insert(Held {
        vote: seen.vote,
        last: seen.last,
    });
    // Less is fine: the node is deleting the replica.
    let voted = seen.vote.is_some() && seen.vote != held.vote;
    if voted || seen.last > held.last {
        return Err(format!(
            "{} is in quarantine since {:?}, had {held:?}, and now has {:?} and {:?}",
            replica.name(),
            marked.since,
            seen.vote,
            seen.last
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{Story, place, replica, vote};

    /// Looks three seconds apart, each with the mark and the end of the log.
    fn story(looks: &[(bool, u64)]) -> Result<(), String> {
        let mut check = QuarantineHolds::default();
        let mut story = Story::default();
        for (number, (quarantined, last)) in (0_u64..).zip(looks) {
            let one = replica(1, |seen| {
                seen.quarantined = *quarantined;
                seen.last = place(1, *last);
                seen.vote = vote(*last, 1, false);
            });
            story.look.at = Duration::from_secs(3 * number);
            story.look.replicas = vec![one];
            story.look(&mut check)?;
        }
        Ok(())
    }

    #[test]
    fn a_marked_replica_that_stands_still_passes_and_so_does_one_that_is_not_marked() {
        assert_eq!(
            story(&[(false, 1), (true, 2), (true, 2), (true, 2)]),
            Ok(())
        );
        assert_eq!(story(&[(false, 1), (false, 2), (false, 3)]), Ok(()));
        // Work that was under way when the mark was set.
        assert_eq!(story(&[(true, 2), (true, 3), (true, 3)]), Ok(()));
    }

    #[test]
    fn a_marked_replica_that_goes_on_is_found() {
        assert!(story(&[(true, 2), (true, 2), (true, 3)]).is_err());
    }
}
