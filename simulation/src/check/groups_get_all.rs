//! Every group receives every acknowledged record, with the content in the log, even if its members change.
//! Exempt are records that were trimmed, and records before the start offset of a group that begins at the
//! end.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Seen};
use crate::history::{Event, Place};

/// The check.
#[derive(Debug)]
pub struct GroupsGetAll;

impl Check for GroupsGetAll {
    fn name(&self) -> &'static str {
        "groups-get-all"
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let given = Given::of(seen)?;
        for (at, event) in seen.history {
            let Event::Acknowledged {
                name,
                place,
                offset,
            } = event
            else {
                continue;
            };
            let Some(log) = seen.logs.get(place) else {
                continue;
            };
            let group = seen.truth.at(*place).map(|(_, group)| group);
            let start = group.map_or(0, |group| group.log_start).max(log.start);
            let missing = given.groups.iter().find(|group| {
                let got = given.offsets.get(&(**group, *place));
                let begins = seen.starts.of(**group, *place);
                begins.is_some_and(|begins| begins <= *offset)
                    && !got.is_some_and(|got| got.contains(offset))
            });
            if let Some(group) = missing.filter(|_| *offset >= start) {
                return Err(format!(
                    "record {name:?}, acknowledged at {at:?} at {place}, offset {offset}, was never delivered to group {group}"
                ));
            }
        }
        Ok(())
    }
}

/// Groups that had a member, and the offsets that each group received.
#[derive(Debug, Default)]
struct Given {
    groups: BTreeSet<u32>,
    offsets: BTreeMap<(u32, Place), BTreeSet<u64>>,
}

impl Given {
    /// Collects the deliveries of a run. Fails if a record differs from the committed one.
    fn of(seen: &Seen<'_>) -> Result<Given, String> {
        let mut given = Given::default();
        for (at, event) in seen.history {
            match event {
                Event::Joined { who, .. } => {
                    given.groups.insert(who.group);
                }
                Event::Delivered {
                    who,
                    place,
                    offset,
                    name,
                    content,
                    ..
                } => {
                    let offsets = given.offsets.entry((who.group, *place)).or_default();
                    offsets.insert(*offset);
                    let group = seen.truth.at(*place).map(|(_, group)| group);
                    let Some(group) = group.filter(|group| !group.has_gaps) else {
                        continue;
                    };
                    let record = group.record(*offset);
                    // A deletion removes the topic's records that were written since the last look at its
                    // replicas.
                    if record.is_none() && !seen.logs.contains_key(place) {
                        continue;
                    }
                    let there = record.map(|record| (record.name, record.content));
                    if there != Some((*name, *content)) {
                        return Err(format!(
                            "{who} was given {name:?} (content {content:08x}) at {place}, offset {offset}, at {at:?}; committed is {record:?}"
                        ));
                    }
                }
                _ => {}
            }
        }
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::groups::{LIFE, commit, delivered, join};
    use crate::check::fixtures::{Story, acknowledged, log, truth_of};
    use crate::history::Call;

    const JOINED: Event = Event::Joined {
        who: LIFE,
        handlers: 0,
    };

    fn judge(start: u64, events: impl IntoIterator<Item = Event>) -> Result<(), String> {
        let both = [acknowledged((1, 0), 0), acknowledged((1, 1), 1), JOINED];
        let mut story = Story::of(both.into_iter().chain(events));
        story.logs = log(start, (start..2).map(|number| (1, number)));
        story.truth = truth_of(&[(1, 0), (1, 1)]);
        story.end(&mut GroupsGetAll)
    }

    #[test]
    fn what_was_delivered_or_trimmed_passes() {
        assert_eq!(judge(0, [delivered(0), delivered(1)]), Ok(()));
        assert_eq!(judge(1, [delivered(1)]), Ok(()));
    }

    #[test]
    fn what_was_never_delivered_to_a_group_is_found() {
        assert!(judge(0, [delivered(1)]).is_err());
    }

    #[test]
    fn what_came_before_a_group_that_begins_at_the_end_passes_and_what_its_topic_gained_does_not() {
        let begins = Event::BeginsAtTheEnd { group: 0 };
        let create = |partitions| Event::Called {
            number: 0,
            call: Call::CreateTopic {
                topic: 0,
                partitions,
                settings: Default::default(),
            },
        };
        let judge = |partitions| {
            let first = acknowledged((1, 0), 0);
            let mut story = Story::of([begins.clone(), create(partitions), JOINED, first]);
            story.logs = log(0, [(1, 0)]);
            story.truth = truth_of(&[(1, 0)]);
            story.fresh = vec![join(1, "a"), commit(2, "a", 1, 1)];
            story.end(&mut GroupsGetAll)
        };
        assert_eq!(judge(1), Ok(()));
        assert!(judge(0).is_err(), "the group met the topic without it");
    }

    #[test]
    fn what_nobody_committed_is_found_unless_its_topic_is_gone() {
        let mut story = Story::of([delivered(0), delivered(1)]);
        story.truth = truth_of(&[(1, 0)]);
        assert_eq!(story.end(&mut GroupsGetAll), Ok(()));
        story.logs = log(0, [(1, 0)]);
        assert!(story.end(&mut GroupsGetAll).is_err());
    }

    #[test]
    fn what_was_delivered_as_something_else_is_found() {
        let mut other = delivered(1);
        if let Event::Delivered { content, .. } = &mut other {
            *content ^= 1;
        }
        assert!(judge(0, [delivered(0), other]).is_err());
    }
}
