//! A group's members receive records of a new partition only after the group has processed all records before
//! the fences of the old partitions. Those records may include earlier ones of the keys that moved.

use std::collections::BTreeMap;

use super::{Check, Seen};
use crate::history::{Call, Event, Place};
use crate::load::{MAIN, Prefix};

/// The first ring of a topic; each growth brings the next.
const FIRST_RING: u32 = 1;

/// The check.
#[derive(Debug)]
pub struct OldBeforeNew;

/// Number of partitions of the topic under each ring.
#[derive(Debug, Default)]
struct Rings(Vec<u32>);

impl Rings {
    fn hear(&mut self, call: &Call) {
        let (Call::CreateTopic {
            topic: MAIN,
            partitions,
            ..
        }
        | Call::GrowTopic {
            topic: MAIN,
            partitions,
        }) = call
        else {
            return;
        };
        if self.0.last().is_none_or(|last| last < partitions) {
            self.0.push(*partitions);
        }
    }

    /// The ring that added a partition, and the number of partitions before it.
    fn brought(&self, partition: u32) -> Option<(u32, u32)> {
        let ring = self.0.iter().position(|count| partition < *count)?;
        let before = self.0.get(ring.checked_sub(1)?)?;
        Some((ring as u32 + FIRST_RING, *before))
    }
}

impl Check for OldBeforeNew {
    fn name(&self) -> &'static str {
        "old-before-new"
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let mut rings = Rings::default();
        let mut processed: BTreeMap<(u32, Place), Prefix> = BTreeMap::new();
        for (at, event) in seen.history {
            match event {
                Event::Called { call, .. } => rings.hear(call),
                Event::Processed { who, place, offset } if place.topic == MAIN => {
                    let prefix = processed.entry((who.group, *place)).or_default();
                    prefix.add(*offset);
                }
                Event::Delivered {
                    who, place, offset, ..
                } if place.topic == MAIN => {
                    let Some((ring, before)) = rings.brought(place.partition) else {
                        continue;
                    };
                    for partition in 0..before {
                        let old = Place {
                            topic: MAIN,
                            partition,
                        };
                        let prefix = processed.entry((who.group, old)).or_default();
                        prefix.skip_to(seen.starts.of(who.group, old).unwrap_or_default());
                        if let Some(fence) = unread(seen, old, ring, prefix) {
                            return Err(format!(
                                "{who} was given offset {offset} of {place} at {at:?}, when its group had finished only with what is before {} of {old}, whose fence is at {fence}",
                                prefix.end()
                            ));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The fence of a partition, if it is beyond the processed and the trimmed offsets.
fn unread(seen: &Seen<'_>, old: Place, ring: u32, prefix: &mut Prefix) -> Option<u64> {
    let (_, group) = seen.truth.at(old)?;
    let mut fences = group.fences.iter().filter(|_| !group.has_gaps);
    let (_, fence) = fences.find(|(of, _)| *of >= ring)?;
    prefix.skip_to(group.log_start);
    (prefix.end() < *fence).then_some(*fence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::groups::{delivered_at, processed};
    use crate::check::fixtures::{GROUP, PLACE, Story, log, truth_of};

    /// A topic that grew from one partition with two records to two partitions.
    fn judge(done: u64) -> Result<(), String> {
        let call = |number, call| Event::Called { number, call };
        let create = Call::CreateTopic {
            topic: MAIN,
            partitions: 1,
            settings: Default::default(),
        };
        let grow = Call::GrowTopic {
            topic: MAIN,
            partitions: 2,
        };
        let begin = [call(0, create), call(1, grow)];
        let new = Place {
            partition: 1,
            ..PLACE
        };
        let events = begin.into_iter().chain((0..done).map(processed));
        let mut story = Story::of(events.chain([delivered_at(new, 0)]));
        story.logs = log(0, [(1, 0), (1, 1)]);
        story.truth = truth_of(&[(1, 0), (1, 1)]);
        let group = story.truth.group_mut(GROUP).expect("a group");
        group.fences = vec![(2, 2)];
        story.end(&mut OldBeforeNew)
    }

    #[test]
    fn a_new_partition_after_all_before_the_fences_passes() {
        assert_eq!(judge(2), Ok(()));
    }

    #[test]
    fn a_new_partition_before_the_old_ones_are_finished_with_is_found() {
        assert!(judge(1).is_err());
    }

    #[test]
    fn each_partition_came_with_a_ring() {
        let rings = Rings(vec![2, 3, 5]);
        assert_eq!((rings.brought(1), rings.brought(2)), (None, Some((2, 2))));
        assert_eq!((rings.brought(4), rings.brought(5)), (Some((3, 3)), None));
    }
}
