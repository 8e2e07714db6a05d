//! A topic is its id, not its name. If a topic is deleted and another is created under its name, no record of
//! one is read from the other or appended to it. Each key is in one partition of each topic. Every ring of a
//! later topic is newer than every ring of an earlier one.

use std::collections::BTreeMap;

use ropewalk_proto::ids::GroupId;

use super::{Check, Now};
use crate::history::{Event, Place, RecordName};
use crate::load::RECREATED;
use crate::observe::committed_model::Record;
use crate::observe::disk_reader;

/// The check.
#[derive(Debug, Default)]
pub struct TopicsAreTheirIds {
    /// Partition of each group, with the life of the topic as its topic number.
    places: BTreeMap<GroupId, Place>,
    /// Life that a record was sent to, if its sender named one.
    meant: BTreeMap<RecordName, u32>,
    /// Partition and life that a reader took a record to be from.
    read: BTreeMap<RecordName, Place>,
    committed: BTreeMap<RecordName, Place>,
    /// Partition of each life and key.
    homes: BTreeMap<(u32, u32), Place>,
    /// Lowest and highest ring of each life.
    rings: BTreeMap<u32, (u32, u32)>,
}

impl Check for TopicsAreTheirIds {
    fn name(&self) -> &'static str {
        "a-topic-is-its-id"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        self.places.extend(disk_reader::lives(now.look));
        for (_, event) in now.news {
            match event {
                Event::Sent { name, topic, .. } if *topic > RECREATED => {
                    self.meant.insert(*name, *topic);
                }
                Event::Read {
                    place,
                    name: Some(name),
                    ..
                } if place.topic > RECREATED => {
                    self.read.insert(*name, *place);
                    self.judge(*name)?;
                }
                _ => {}
            }
        }
        for one in now.fresh {
            let Some(&place) = self.places.get(&one.group) else {
                continue;
            };
            for record in &one.records {
                self.add(place, record)?;
            }
        }
        Ok(())
    }
}

impl TopicsAreTheirIds {
    fn add(&mut self, place: Place, record: &Record) -> Result<(), String> {
        let Some(name) = record.name else {
            return Ok(());
        };
        self.committed.insert(name, place);
        self.judge(name)?;
        if let Some(key) = record.key {
            let home = *self.homes.entry((place.topic, key)).or_insert(place);
            if home != place {
                return Err(format!(
                    "key {key} of record {name:?} is in {place}, and also in {home}"
                ));
            }
        }
        self.add_ring(place.topic, record.ring)
    }

    fn add_ring(&mut self, life: u32, ring: u32) -> Result<(), String> {
        if ring == 0 {
            return Ok(());
        }
        let (lowest, highest) = self.rings.entry(life).or_insert((ring, ring));
        (*lowest, *highest) = (ring.min(*lowest), ring.max(*highest));
        let (lowest, highest) = (*lowest, *highest);
        let before = self.rings.range(..life).next_back();
        let after = self.rings.range(life + 1..).next();
        let overlaps = before.is_some_and(|(_, (_, ring))| *ring >= lowest)
            || after.is_some_and(|(_, (ring, _))| *ring <= highest);
        match overlaps {
            true => Err(format!(
                "topic {life} has records routed by rings {lowest} to {highest}, and by its name there were {before:?} before and {after:?} after it"
            )),
            false => Ok(()),
        }
    }

    /// Checks that a record is in the life it was sent to, and was read from the life it is in.
    fn judge(&self, name: RecordName) -> Result<(), String> {
        let Some(place) = self.committed.get(&name) else {
            return Ok(());
        };
        if let Some(read) = self.read.get(&name).filter(|read| *read != place) {
            return Err(format!(
                "record {name:?} is in {place}, and was read as one of {read}"
            ));
        }
        match self.meant.get(&name) {
            Some(meant) if *meant != place.topic => Err(format!(
                "record {name:?} was sent to topic {meant} by its id, and is in {place}"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{CONTENT, GROUP, Story, committed_by_ring};

    fn life(id: u32, partition: u32) -> Place {
        Place {
            topic: RECREATED + id,
            partition,
        }
    }

    /// Commits one record in each of these partitions, routed by these rings. The first was read from `read`
    /// and sent to `meant`.
    fn judge(written: &[(Place, u32)], read: Place, meant: u32) -> Result<(), String> {
        let mut check = TopicsAreTheirIds::default();
        let mut story = Story::of([
            Event::Sent {
                name: (1, 0),
                topic: meant,
                key: None,
                content: CONTENT,
            },
            Event::Read {
                reader: 1,
                place: read,
                offset: 0,
                name: Some((1, 0)),
                content: CONTENT,
            },
        ]);
        for (number, (place, ring)) in (0..).zip(written) {
            let group = GroupId(GROUP.0 + number);
            check.places.insert(group, *place);
            let mut one = committed_by_ring(*ring, 0, &[(1, number)]);
            one.group = group;
            story.fresh.push(one);
        }
        story.look(&mut check)
    }

    #[test]
    fn lives_that_have_nothing_of_each_other_pass() {
        let written = [(life(1, 0), 1), (life(2, 3), 4), (life(2, 3), 4)];
        assert_eq!(judge(&written, life(1, 0), RECREATED + 1), Ok(()));
        assert_eq!(judge(&written, life(1, 0), RECREATED), Ok(()));
    }

    #[test]
    fn a_record_that_is_read_or_written_in_another_life_is_found() {
        let written = [(life(2, 0), 1)];
        assert!(judge(&written, life(1, 0), RECREATED).is_err());
        assert!(judge(&written, life(2, 0), RECREATED + 1).is_err());
    }

    #[test]
    fn a_key_in_two_partitions_of_a_life_is_found() {
        let written = [(life(1, 0), 1), (life(1, 1), 1)];
        assert!(judge(&written, life(1, 0), RECREATED).is_err());
    }

    #[test]
    fn a_ring_that_an_earlier_life_had_is_found() {
        for rings in [(2, 2), (3, 1)] {
            let written = [(life(1, 0), rings.0), (life(2, 0), rings.1)];
            assert!(judge(&written, life(1, 0), RECREATED).is_err());
        }
    }
}
