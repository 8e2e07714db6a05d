//! Only sent records are committed: each committed record has the name of a record that was sent to that
//! topic with that content. No record is committed twice, and no refused record is committed.

use std::collections::BTreeMap;

use super::{Check, Now};
use crate::history::{Event, RecordName};

/// The check.
#[derive(Debug, Default)]
pub struct NoPhantoms {
    sent: BTreeMap<RecordName, (u32, u32)>,
    /// Records that were refused for good, with the reason.
    refused: BTreeMap<RecordName, String>,
    /// Position of each record.
    committed: BTreeMap<RecordName, String>,
}

impl Check for NoPhantoms {
    fn name(&self) -> &'static str {
        "no-phantoms"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for (_, event) in now.news {
            match event {
                Event::Sent {
                    name,
                    topic,
                    content,
                    ..
                } => {
                    self.sent.insert(*name, (*topic, *content));
                }
                Event::Failed {
                    name,
                    unknown: false,
                    error,
                } => {
                    if let Some(place) = self.committed.get(name) {
                        return Err(refused_and_there(*name, place, error));
                    }
                    self.refused.insert(*name, error.clone());
                }
                _ => {}
            }
        }
        for one in now.fresh {
            let place = one
                .place
                .map_or_else(|| format!("group {}", one.group), |place| place.to_string());
            for record in &one.records {
                let here = format!("{place}, offset {}", record.offset);
                let sent = record.name.and_then(|name| self.sent.get(&name));
                let (Some(name), Some((topic, content))) = (record.name, sent) else {
                    return Err(format!("{here}: nobody sent {record:?}"));
                };
                let elsewhere = one.place.is_some_and(|place| place.topic != *topic);
                if elsewhere || record.content != *content {
                    return Err(format!(
                        "{here}: record {name:?} was sent to topic {topic} with content {content:08x}, and is {record:?}"
                    ));
                }
                if let Some(error) = self.refused.get(&name) {
                    return Err(refused_and_there(name, &here, error));
                }
                if let Some(first) = self.committed.insert(name, here.clone()) {
                    return Err(format!(
                        "record {name:?} is at {first}, and again at {here}"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn refused_and_there(name: RecordName, place: &str, error: &str) -> String {
    format!("record {name:?} is at {place}, though it is known to have been refused: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{CONTENT, Story, committed, sent};

    fn judge(events: Vec<Event>, records: &[RecordName]) -> Result<(), String> {
        let mut story = Story::of(events);
        story.fresh = vec![committed(0, records)];
        story.look(&mut NoPhantoms::default())
    }

    fn refused(name: RecordName, unknown: bool) -> Event {
        Event::Failed {
            name,
            unknown,
            error: "no".to_owned(),
        }
    }

    #[test]
    fn what_was_sent_may_be_there_even_if_its_outcome_is_unknown() {
        let events = vec![sent((1, 0), CONTENT), refused((1, 0), true)];
        assert_eq!(judge(events, &[(1, 0)]), Ok(()));
    }

    #[test]
    fn what_nobody_sent_is_found() {
        assert!(judge(vec![], &[(1, 0)]).is_err());
        assert!(judge(vec![sent((1, 0), CONTENT + 1)], &[(1, 0)]).is_err());
    }

    #[test]
    fn what_is_there_twice_is_found() {
        let events = vec![sent((1, 0), CONTENT)];
        assert!(judge(events, &[(1, 0), (1, 0)]).is_err());
    }

    #[test]
    fn what_was_refused_and_is_there_is_found() {
        let events = vec![sent((1, 0), CONTENT), refused((1, 0), false)];
        assert!(judge(events, &[(1, 0)]).is_err());
    }
}
