//! Offsets are dense and the same on every replica. After each log index, a replica's next offset is the
//! number of records accepted so far, and its log start is that of the trims.

use std::collections::BTreeMap;

use ropewalk_proto::command::Command;
use ropewalk_proto::ids::GroupId;
use ropewalk_raft_store::inspect::Payload;

use super::{Check, Now};
use crate::observe::Image;

/// The check.
#[derive(Debug, Default)]
pub struct OffsetsAreDense {
    /// The offset after the last record of each group; none after entries that no look has seen.
    ends: BTreeMap<GroupId, Option<u64>>,
}

impl Check for OffsetsAreDense {
    fn name(&self) -> &'static str {
        "offsets-are-dense"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for one in now.fresh {
            let end = self.ends.entry(one.group).or_insert(Some(0));
            if one.after_a_gap {
                *end = None;
            }
            if let Payload::Command(Command::Compacted { .. }) = &one.entry.payload {
                // Offsets whose records were removed cannot be seen.
                let group = now.truth.group(one.group);
                let after = group.and_then(|group| group.ends.get(&one.entry.place.index));
                *end = (*end).max(after.copied());
                continue;
            }
            for record in &one.records {
                if let Some(end) = *end
                    && end != record.offset
                {
                    return Err(format!(
                        "group {} ({:?}), log index {}: offset {} stands where {end} should",
                        one.group, one.place, record.index, record.offset
                    ));
                }
                *end = Some(record.offset + 1);
            }
        }
        for replica in now.look.of(Image::Live) {
            let (Some(state), Some(applied)) = (&replica.state, replica.seen.applied) else {
                continue;
            };
            let group = now.truth.group(replica.seen.group);
            let counted = group.and_then(|group| group.ends.get(&applied.index));
            if counted.is_some_and(|counted| *counted != state.next_offset) {
                return Err(format!(
                    "{}: after log index {} the next offset is {}, and {counted:?} records were accepted",
                    replica.name(),
                    applied.index,
                    state.next_offset
                ));
            }
            // A snapshot begins at the log start of its sender, which may follow from a later trim.
            let Some(group) = group.filter(|group| counted.is_some() && !group.has_gaps) else {
                continue;
            };
            let trims = group.start_at(applied.index)..=group.log_start;
            if !trims.contains(&state.log_start) {
                return Err(format!(
                    "{}: after log index {} its log begins at {}, and trims go up to {} there, and later up to {}",
                    replica.name(),
                    applied.index,
                    state.log_start,
                    trims.start(),
                    trims.end()
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{Story, append, blank, place, replica, state};
    use crate::observe::State;
    use crate::observe::committed_model::{Committed, Record};
    use ropewalk_proto::command::Command;
    use ropewalk_raft_store::inspect::{InspectedEntry, Payload};

    fn story(next_offset: u64) -> Story {
        let mut story = Story::default();
        let mut leader = replica(1, |seen| {
            seen.entries = vec![blank(1, 0), append(1, 1, &[(1, 0), (1, 1)])];
            seen.applied = place(1, 1);
        });
        leader.state = Some(state(2));
        let mut follower = leader.clone();
        follower.state = Some(state(next_offset));
        story.look.replicas = vec![leader, follower];
        story.learn();
        story
    }

    #[test]
    fn replicas_that_count_alike_pass() {
        assert_eq!(story(2).look(&mut OffsetsAreDense::default()), Ok(()));
    }

    #[test]
    fn a_replica_that_counts_otherwise_is_found() {
        assert!(story(3).look(&mut OffsetsAreDense::default()).is_err());
        assert!(story(1).look(&mut OffsetsAreDense::default()).is_err());
    }

    #[test]
    fn a_log_start_beyond_the_trims_is_found() {
        let mut story = story(2);
        let state = story.look.replicas[1].state.as_mut();
        state.expect("a state").log_start = 1;
        assert!(story.look(&mut OffsetsAreDense::default()).is_err());
    }

    #[test]
    fn a_trim_that_is_not_carried_out_is_found() {
        let trimmed = |log_start| {
            let mut story = Story::default();
            let mut leader = replica(1, |seen| {
                let trim = InspectedEntry {
                    payload: Payload::Command(Command::Trim {
                        to_offset: 2,
                        leader_time_ms: 0,
                    }),
                    ..blank(1, 2)
                };
                seen.entries = vec![blank(1, 0), append(1, 1, &[(1, 0), (1, 1)]), trim];
                seen.applied = place(1, 2);
            });
            leader.state = Some(State {
                log_start,
                ..state(2)
            });
            story.look.replicas = vec![leader];
            story.learn();
            story.look(&mut OffsetsAreDense::default())
        };
        assert_eq!(trimmed(2), Ok(()));
        assert!(trimmed(0).is_err());
    }

    #[test]
    fn a_hole_between_offsets_is_found() {
        let mut story = story(2);
        let last = story.fresh.last_mut().expect("a committed entry");
        last.records[1].offset += 1;
        assert!(story.look(&mut OffsetsAreDense::default()).is_err());
    }

    /// Seed 55 on RocksDB, three minutes: a trim and a purge between two looks, and a blank entry first.
    #[test]
    fn what_nobody_saw_may_have_taken_offsets_whatever_comes_first_behind_it() {
        let behind = |gap: bool| {
            let mut story = story(2);
            let batch = story.fresh.pop().expect("a committed entry");
            story.look.replicas.clear();
            story.fresh.clear();
            story.fresh.push(Committed {
                entry: blank(2, 9),
                base_offset: None,
                records: Vec::new(),
                after_a_gap: gap,
                ..batch.clone()
            });
            let moved = batch.records.iter().map(|record| Record {
                offset: record.offset + 7,
                ..record.clone()
            });
            story.fresh.push(Committed {
                records: moved.collect(),
                ..batch
            });
            story.look(&mut OffsetsAreDense::default())
        };
        assert_eq!(behind(true), Ok(()));
        assert!(behind(false).is_err());
    }
}
