//! Every acknowledged record is in the log once, at the acknowledged offset, with the content it was sent
//! with, unless retention trimmed it. The judges must also have seen it committed; otherwise they are blind.

use std::collections::BTreeMap;

use super::{Check, Seen};
use crate::history::{Event, RecordName};

/// The check.
#[derive(Debug)]
pub struct AcknowledgedIsThere;

impl Check for AcknowledgedIsThere {
    fn name(&self) -> &'static str {
        "acknowledged-is-there"
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let mut contents: BTreeMap<RecordName, u32> = BTreeMap::new();
        for (at, event) in seen.history {
            match event {
                Event::Sent { name, content, .. } => {
                    contents.insert(*name, *content);
                }
                Event::Acknowledged {
                    name,
                    place,
                    offset,
                } => {
                    let Some(log) = seen.logs.get(place) else {
                        continue;
                    };
                    let found = log.at(*offset);
                    let there = found.map(|found| (found.name, found.content));
                    let expected = (Some(*name), contents.get(name).copied().unwrap_or_default());
                    let group = seen.truth.at(*place).map(|(_, group)| group);
                    if let Some(group) = group.filter(|group| !group.has_gaps) {
                        let committed = group.record(*offset);
                        if committed.and_then(|record| record.name) != Some(*name) {
                            return Err(format!(
                                "record {name:?} was acknowledged at {place}, offset {offset}, at {at:?}, and was never seen to be committed there, but {committed:?}; offsets up to {} were counted",
                                group.next_offset
                            ));
                        }
                    }
                    if *offset >= log.start && there != Some(expected) {
                        return Err(format!(
                            "record {name:?} was acknowledged at {place}, offset {offset}, at {at:?}; there is {found:?}"
                        ));
                    }
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
    use crate::check::fixtures::{CONTENT, Story, acknowledged, log, sent, truth_of};

    #[test]
    fn a_record_that_is_where_it_was_acknowledged_is_there() {
        let mut story = Story::of([sent((1, 0), CONTENT), acknowledged((1, 0), 0)]);
        story.logs = log(0, [(1, 0)]);
        assert_eq!(story.end(&mut AcknowledgedIsThere), Ok(()));
        story.logs = log(1, []);
        let trimmed = story.end(&mut AcknowledgedIsThere);
        assert_eq!(trimmed, Ok(()), "retention took it");
    }

    #[test]
    fn a_record_that_is_missing_or_another_is_not_there() {
        let mut story = Story::of([sent((1, 0), CONTENT), acknowledged((1, 0), 0)]);
        story.logs = log(0, []);
        assert!(story.end(&mut AcknowledgedIsThere).is_err());
        story.logs = log(0, [(1, 7)]);
        assert!(story.end(&mut AcknowledgedIsThere).is_err());
        story.logs = log(0, [(1, 0)]);
        story.log_mut().records[0].content ^= 1;
        assert!(story.end(&mut AcknowledgedIsThere).is_err());
    }

    #[test]
    fn a_record_that_nobody_saw_committed_is_not_there() {
        let mut story = Story::of([sent((1, 0), CONTENT), acknowledged((1, 0), 0)]);
        story.logs = log(0, [(1, 0)]);
        story.truth = truth_of(&[(1, 0)]);
        assert_eq!(story.end(&mut AcknowledgedIsThere), Ok(()));
        story.truth = truth_of(&[]);
        assert!(story.end(&mut AcknowledgedIsThere).is_err());
    }
}
