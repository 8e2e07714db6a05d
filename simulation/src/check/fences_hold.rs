//! A fence holds: after it a partition accepts nothing that was routed by an older ring.

use std::collections::BTreeMap;

use ropewalk_proto::command::Command;
use ropewalk_proto::ids::GroupId;
use ropewalk_raft_store::inspect::Payload;

use super::{Check, Now};

/// The check.
#[derive(Debug, Default)]
pub struct FencesHold {
    /// Ring of the last fence of each group.
    rings: BTreeMap<GroupId, u32>,
}

impl Check for FencesHold {
    fn name(&self) -> &'static str {
        "fences-hold"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for one in now.fresh {
            let fenced = self.rings.entry(one.group).or_default();
            match &one.entry.payload {
                Payload::Command(Command::Fence { ring_version, .. }) => {
                    *fenced = (*fenced).max(*ring_version);
                }
                Payload::Command(
                    Command::Append { stamp, .. } | Command::Compacted { stamp, .. },
                ) if one.base_offset.is_some()
                    && stamp.ring_version != 0
                    && stamp.ring_version < *fenced =>
                {
                    let ring_version = stamp.ring_version;
                    return Err(format!(
                        "group {} ({:?}), log index {}: records routed by ring {ring_version} got offset {:?} behind the fence of ring {fenced}",
                        one.group, one.place, one.entry.place.index, one.base_offset
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{Story, committed_by_ring, of_command};
    use crate::observe::committed_model::Committed;

    fn fence(ring_version: u32) -> Committed {
        of_command(
            1,
            Command::Fence {
                leader_time_ms: 0,
                ring_version,
            },
        )
    }

    fn judge(fresh: Vec<Committed>) -> Result<(), String> {
        let story = Story {
            fresh,
            ..Story::default()
        };
        story.look(&mut FencesHold::default())
    }

    #[test]
    fn what_stands_before_a_fence_or_was_routed_by_its_ring_or_by_none_passes() {
        let before = committed_by_ring(1, 0, &[(1, 0)]);
        let behind = committed_by_ring(2, 1, &[(1, 1)]);
        let by_none = committed_by_ring(0, 2, &[(1, 2)]);
        assert_eq!(judge(vec![before, fence(2), behind, by_none]), Ok(()));
    }

    #[test]
    fn what_was_routed_by_an_older_ring_and_stands_behind_a_fence_is_found() {
        assert!(judge(vec![fence(2), committed_by_ring(1, 0, &[(1, 0)])]).is_err());
        assert!(judge(vec![fence(3), fence(2), committed_by_ring(2, 0, &[(1, 0)])]).is_err());
    }
}
