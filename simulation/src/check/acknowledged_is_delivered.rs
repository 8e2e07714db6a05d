//! The reader that follows a partition reads every acknowledged record at least once, unless the record was
//! trimmed before. This holds however often the reader is stopped and resumes from its stored position.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Seen};
use crate::history::{Event, Place};
use crate::load::FOLLOWERS;

/// The check.
#[derive(Debug)]
pub struct AcknowledgedIsDelivered;

impl Check for AcknowledgedIsDelivered {
    fn name(&self) -> &'static str {
        "acknowledged-is-delivered"
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let mut read: BTreeMap<Place, BTreeSet<u64>> = BTreeMap::new();
        let mut skipped: BTreeMap<Place, Vec<(u64, u64)>> = BTreeMap::new();
        for (_, event) in seen.history {
            match event {
                Event::Read {
                    reader,
                    place,
                    offset,
                    ..
                } if FOLLOWERS.contains(reader) => {
                    read.entry(*place).or_default().insert(*offset);
                }
                Event::Skipped {
                    reader,
                    place,
                    from,
                    to,
                } => {
                    let trimmed = seen.truth.at(*place).map(|(_, group)| group.log_start);
                    if trimmed.is_some_and(|start| *to > start) && to > from {
                        return Err(format!(
                            "the reader of {place} was told that {from} up to {to} are trimmed, and the last trim was to {trimmed:?}"
                        ));
                    }
                    if FOLLOWERS.contains(reader) {
                        skipped.entry(*place).or_default().push((*from, *to));
                    }
                }
                _ => {}
            }
        }
        for (at, event) in seen.history {
            let Event::Acknowledged {
                name,
                place,
                offset,
            } = event
            else {
                continue;
            };
            let skipped = skipped.get(place).map_or(&[][..], Vec::as_slice);
            let trimmed = skipped
                .iter()
                .any(|(from, to)| (from..to).contains(&offset));
            let read = read.get(place).is_some_and(|read| read.contains(offset));
            if seen.logs.contains_key(place) && !read && !trimmed {
                return Err(format!(
                    "record {name:?}, acknowledged at {at:?} at {place}, offset {offset}, was never delivered"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{CONTENT, GROUP, PLACE, Story, acknowledged, log, truth_of};

    fn read(reader: u32, offset: u64) -> Event {
        Event::Read {
            reader,
            place: PLACE,
            offset,
            name: Some((1, offset)),
            content: CONTENT,
        }
    }

    fn skipped(from: u64, to: u64) -> Event {
        Event::Skipped {
            reader: 0,
            place: PLACE,
            from,
            to,
        }
    }

    fn judge(start: u64, events: impl IntoIterator<Item = Event>) -> Result<(), String> {
        let mut story = Story::of(events);
        story.logs = log(start, (start..2).map(|number| (1, number)));
        story.truth = truth_of(&[(1, 0), (1, 1)]);
        story.truth.group_mut(GROUP).expect("a group").log_start = start;
        story.end(&mut AcknowledgedIsDelivered)
    }

    #[test]
    fn what_was_read_or_trimmed_before_is_delivered() {
        let both = [acknowledged((1, 0), 0), acknowledged((1, 1), 1)];
        let read_both = both.iter().cloned().chain([read(0, 0), read(0, 1)]);
        assert_eq!(judge(0, read_both), Ok(()));
        let trimmed = both.into_iter().chain([skipped(0, 1), read(0, 1)]);
        assert_eq!(judge(1, trimmed), Ok(()));
    }

    #[test]
    fn what_was_never_read_by_one_who_follows_is_found() {
        assert!(judge(0, [acknowledged((1, 0), 0)]).is_err());
        let by_another = [acknowledged((1, 0), 0), read(*FOLLOWERS.end() + 1, 0)];
        assert!(judge(0, by_another).is_err());
    }

    #[test]
    fn a_skip_over_what_is_there_is_found() {
        let events = [acknowledged((1, 0), 0), skipped(0, 1), read(0, 1)];
        assert!(judge(0, events).is_err());
    }
}
