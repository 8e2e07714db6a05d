//! Acknowledged means durable on a majority. At every look, a power loss of all nodes would leave every
//! acknowledged record on a majority of the partition's voters.
//!
//! The voters are those of the last committed membership, or of a later one in some log. Raft applies a new
//! membership as soon as it is written. A copy on a damaged or exchanged disk counts as held, since the fault
//! took it. Entries that such a disk took later count, too: nothing behind a damaged place of a log can be
//! read, and a running node does not notice. A disk that cannot be opened counts as damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ropewalk_proto::ids::{GroupId, ReplicaId};
use ropewalk_raft_store::inspect::{Digest, InspectedEntry, Payload};

use super::{Check, Now};
use crate::history::{Call, Event, Place, RecordName};
use crate::observe::committed_model::{CommittedModel, Group};
use crate::observe::{Image, Replica};

/// The check.
#[derive(Debug, Default)]
pub struct AcknowledgedIsDurable {
    held: BTreeMap<ReplicaId, Held>,
    /// Last log index of each group that holds an acknowledged record, with the record.
    acknowledged: BTreeMap<GroupId, (u64, Acknowledged)>,
    /// Acknowledged records that are not yet known to be committed.
    waiting: Vec<(Place, u64, Acknowledged)>,
    /// Topics that a client asked to delete.
    deleted: BTreeSet<u32>,
}

#[derive(Debug, Clone)]
struct Acknowledged {
    name: RecordName,
    at: Duration,
}

/// Content of one replica's durable image.
#[derive(Debug, Default)]
struct Held {
    /// Term and digest, by index.
    entries: BTreeMap<u64, (u64, Digest)>,
    purged: Option<u64>,
    losses: u64,
    host: String,
    /// True if its disk could not be seen at the last look: its newer entries are unknown.
    unseen: bool,
    /// True if its disk is damaged: the next start may lose its newer entries.
    on_damaged_disk: bool,
}

impl Held {
    fn see(&mut self, replica: &Replica) {
        let seen = &replica.seen;
        if seen.damaged.is_empty() && self.losses == replica.losses {
            self.entries.split_off(&seen.from_index);
        }
        self.losses = replica.losses;
        self.host.clone_from(&replica.host);
        for InspectedEntry { place, digest, .. } in &seen.entries {
            self.entries.insert(place.index, (place.term, *digest));
        }
        self.purged = self.purged.max(seen.purged.map(|purged| purged.index));
    }

    fn holds(&self, index: u64, entry: (u64, Digest)) -> bool {
        let purged = self.purged.is_some_and(|purged| purged >= index);
        self.unseen || self.on_damaged_disk || purged || self.entries.get(&index) == Some(&entry)
    }
}

impl Check for AcknowledgedIsDurable {
    fn name(&self) -> &'static str {
        "acknowledged-is-durable"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        self.hear(now);
        if now.look.survivors == 0 {
            return Ok(());
        }
        self.see(now);
        for (id, (index, record)) in &self.acknowledged {
            let Some(group) = now.truth.group(*id) else {
                continue;
            };
            let deleted = group
                .place
                .is_some_and(|place| self.deleted.contains(&place.topic));
            let Some(&entry) = group.committed.get(index).filter(|_| !deleted) else {
                continue;
            };
            let configs = configs(group, *id, now);
            let durable = configs
                .iter()
                .any(|sets| self.is_durable(sets, *index, entry));
            if !durable && !configs.is_empty() {
                return Err(format!(
                    "record {:?}, acknowledged at {:?}, at log index {index} of group {id} ({:?}), is not durable on a majority of any of {configs:?}; it is on {:?}",
                    record.name,
                    record.at,
                    group.place,
                    self.holders(*index, entry)
                ));
            }
        }
        Ok(())
    }
}

impl AcknowledgedIsDurable {
    fn see(&mut self, now: &Now<'_>) {
        let mut gone: BTreeSet<ReplicaId> = self.held.keys().copied().collect();
        let mut losses = BTreeMap::new();
        for replica in now.look.of(Image::Durable) {
            gone.remove(&replica.seen.replica);
            losses.insert(replica.host.as_str(), replica.losses);
            self.held
                .entry(replica.seen.replica)
                .or_default()
                .see(replica);
        }
        let damaged = now.look.replicas.iter().filter(|one| one.on_damaged_disk);
        for replica in damaged {
            gone.remove(&replica.seen.replica);
            let held = self.held.entry(replica.seen.replica).or_default();
            held.host.clone_from(&replica.host);
            held.on_damaged_disk = true;
        }
        // A replica that is gone though its disk lost nothing was deleted by its node. A disk that cannot be
        // seen at all was exchanged.
        self.held.retain(|id, held| {
            let left = losses.get(held.host.as_str());
            held.unseen = left.is_none();
            !gone.contains(id) || left.is_none_or(|losses| *losses != held.losses)
        });
    }

    fn hear(&mut self, now: &Now<'_>) {
        for (at, event) in now.news {
            match event {
                Event::Acknowledged {
                    name,
                    place,
                    offset,
                } => {
                    let record = Acknowledged {
                        name: *name,
                        at: *at,
                    };
                    self.waiting.push((*place, *offset, record));
                }
                Event::Called {
                    call: Call::DeleteTopic { topic },
                    ..
                } => {
                    self.deleted.insert(*topic);
                }
                _ => {}
            }
        }
        let acknowledged = &mut self.acknowledged;
        self.waiting.retain(|(place, offset, record)| {
            let Some((group, index)) = find(now.truth, *place, *offset) else {
                return true;
            };
            let last = acknowledged.entry(group);
            let last = last.or_insert_with(|| (index, record.clone()));
            if index > last.0 {
                *last = (index, record.clone());
            }
            false
        });
    }

    fn is_durable(&self, sets: &[BTreeSet<ReplicaId>], index: u64, entry: (u64, Digest)) -> bool {
        sets.iter().all(|voters| {
            let holding = voters.iter().filter(|voter| {
                let held = self.held.get(voter);
                held.is_some_and(|held| held.holds(index, entry))
            });
            holding.count() > voters.len() / 2
        })
    }

    fn holders(&self, index: u64, entry: (u64, Digest)) -> Vec<String> {
        let holding = self
            .held
            .iter()
            .filter(|(_, held)| held.holds(index, entry));
        holding
            .map(|(id, held)| format!("replica {id} on {}", held.host))
            .collect()
    }
}

fn find(truth: &CommittedModel, place: Place, offset: u64) -> Option<(GroupId, u64)> {
    let (id, group) = truth.at(place)?;
    Some((id, group.record(offset)?.index))
}

/// Memberships that may be in force.
pub(super) fn configs(group: &Group, id: GroupId, now: &Now<'_>) -> Vec<Vec<BTreeSet<ReplicaId>>> {
    let mut configs = Vec::new();
    let committed = group.voters.last_key_value();
    configs.extend(committed.map(|(_, voters)| voters.clone()));
    let after = committed.map_or(0, |(index, _)| *index);
    for replica in now.look.replicas.iter().filter(|one| one.seen.group == id) {
        for entry in &replica.seen.entries {
            if let Payload::Voters(voters) = &entry.payload
                && entry.place.index > after
                && !configs.contains(voters)
            {
                configs.push(voters.clone());
            }
        }
    }
    configs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{
        GROUP, PLACE, Story, acknowledged, append, durable, place, replica, voters,
    };

    /// Three voters, of which `on` hold the acknowledged record.
    fn story(on: &[u64]) -> Story {
        let mut story = Story::of([acknowledged((1, 0), 0)]);
        let log = || vec![voters(1, 0, &[1, 2, 3]), append(1, 1, &[(1, 0)])];
        let mut leader = replica(9, |seen| {
            seen.entries = log();
            seen.applied = place(1, 1);
        });
        leader.state = Some(crate::check::fixtures::state(1));
        let images = (1..=3).map(|id| {
            durable(replica(id, |seen| {
                seen.entries = log();
                seen.entries.truncate(if on.contains(&id) { 2 } else { 1 });
            }))
        });
        story.look.survivors = 3;
        story.look.replicas = images.chain([leader]).collect();
        story.truth.name(GROUP, PLACE);
        story.learn();
        story
    }

    #[test]
    fn a_record_on_two_of_three_disks_is_durable() {
        let story = story(&[1, 3]);
        assert_eq!(story.look(&mut AcknowledgedIsDurable::default()), Ok(()));
    }

    #[test]
    fn a_record_on_one_of_three_disks_is_not() {
        let story = story(&[2]);
        let judged = story.look(&mut AcknowledgedIsDurable::default());
        assert!(judged.is_err_and(|what| what.contains("(1, 0)")));
    }

    #[test]
    fn a_record_on_disks_that_keep_nothing_at_all_is_not() {
        let mut story = story(&[1, 2, 3]);
        let replicas = &mut story.look.replicas;
        replicas.retain(|replica| replica.image == Image::Live);
        let judged = story.look(&mut AcknowledgedIsDurable::default());
        assert!(judged.is_err());
    }

    #[test]
    fn a_copy_that_a_fault_destroyed_counts_and_one_that_was_given_up_does_not() {
        let mut check = AcknowledgedIsDurable::default();
        let mut story = story(&[1, 2]);
        assert_eq!(story.look(&mut check), Ok(()));
        story.history.clear();
        story.look.replicas[0].seen.entries.clear();
        story.look.replicas[0].losses = 1;
        assert_eq!(story.look(&mut check), Ok(()), "the disk was exchanged");
        story.look.replicas[1].seen.entries.clear();
        assert!(
            story.look(&mut check).is_err(),
            "nothing happened to this one"
        );
    }

    #[test]
    fn what_a_damaged_disk_took_after_the_damage_counts() {
        let mut check = AcknowledgedIsDurable::default();
        let mut story = story(&[1]);
        story.look.replicas[1].losses = 1;
        story.look.replicas[1].on_damaged_disk = true;
        assert_eq!(story.look(&mut check), Ok(()));
        assert_eq!(story.look(&mut check), Ok(()), "and goes on to");
        story.look.replicas[0].seen.entries.clear();
        assert!(story.look(&mut check).is_err(), "alone it is no majority");
    }
}
