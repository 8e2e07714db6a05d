//! Readers receive only committed records, one record for each offset. A reader continues from its first
//! offset, one offset after another.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Check, Now, Seen};
use crate::history::{Event, Place, RecordName};
use crate::load::RECREATED;
use crate::observe::committed_model::CommittedModel;

/// The check.
#[derive(Debug, Default)]
pub struct ReadsAreCommitted {
    /// Next offset of each reader.
    next: BTreeMap<u32, u64>,
    /// Reads of records that are not yet known to be committed.
    waiting: Vec<Read>,
}

#[derive(Debug, Clone)]
struct Read {
    at: Duration,
    reader: u32,
    place: Place,
    offset: u64,
    name: Option<RecordName>,
    content: u32,
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "reader {} got {:?} (content {:08x}) at {}, offset {}, at {:?}",
            self.reader, self.name, self.content, self.place, self.offset, self.at
        )
    }
}

impl Check for ReadsAreCommitted {
    fn name(&self) -> &'static str {
        "reads-are-committed"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for (at, event) in now.news {
            match event {
                Event::Began { reader, offset, .. } => {
                    self.next.insert(*reader, *offset);
                }
                Event::Passed {
                    reader, from, to, ..
                } => {
                    let next = self.next.insert(*reader, *to);
                    if next != Some(*from) {
                        return Err(format!(
                            "reader {reader} was led past {from} up to {to} at {at:?}, and {next:?} was to come"
                        ));
                    }
                }
                Event::Read {
                    reader,
                    place,
                    offset,
                    name,
                    content,
                } => {
                    let next = self.next.insert(*reader, offset + 1);
                    if next != Some(*offset) {
                        return Err(format!(
                            "reader {reader} of {place} got offset {offset} at {at:?}, and {next:?} was to come"
                        ));
                    }
                    // Records of a deleted topic may be gone before a look; `a-topic-is-its-id` judges those.
                    if place.topic < RECREATED {
                        self.waiting.push(Read {
                            at: *at,
                            reader: *reader,
                            place: *place,
                            offset: *offset,
                            name: *name,
                            content: *content,
                        });
                    }
                }
                _ => {}
            }
        }
        let mut waiting = Vec::new();
        for read in std::mem::take(&mut self.waiting) {
            if !is_committed(now.truth, &read)? {
                waiting.push(read);
            }
        }
        self.waiting = waiting;
        Ok(())
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for read in &self.waiting {
            let group = seen.truth.at(read.place).map(|(_, group)| group);
            if group.is_some_and(|group| !group.has_gaps) {
                return Err(format!("{read}, and that was never committed"));
            }
            // If no look saw the entries, the final content of the log must do.
            let log = seen.logs.get(&read.place);
            let Some(log) = log.filter(|log| read.offset >= log.start) else {
                continue;
            };
            let found = log.at(read.offset);
            if found.map(|found| (found.name, found.content)) != Some((read.name, read.content)) {
                return Err(format!("{read}, and in the end there is {found:?}"));
            }
        }
        Ok(())
    }
}

/// True if the record that was read is known to be committed; an error if another one is.
fn is_committed(truth: &CommittedModel, read: &Read) -> Result<bool, String> {
    let Some((_, group)) = truth.at(read.place) else {
        return Ok(false);
    };
    match group.record(read.offset) {
        Some(record) if (record.name, record.content) == (read.name, read.content) => Ok(true),
        Some(record) => Err(format!("{read}, and committed is {record:?}")),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{CONTENT, PLACE, Story, log, truth_of};

    fn began(offset: u64) -> Event {
        Event::Began {
            reader: 1,
            place: PLACE,
            offset,
        }
    }

    fn read(offset: u64, name: RecordName) -> Event {
        Event::Read {
            reader: 1,
            place: PLACE,
            offset,
            name: Some(name),
            content: CONTENT,
        }
    }

    fn judge(events: Vec<Event>) -> Result<(), String> {
        let mut check = ReadsAreCommitted::default();
        let mut story = Story::of(events);
        story.truth = truth_of(&[(1, 0), (1, 1)]);
        story.logs = log(0, [(1, 0), (1, 1)]);
        story.look(&mut check)?;
        story.end(&mut check)
    }

    #[test]
    fn a_reader_that_goes_on_and_begins_again_passes() {
        let events = vec![
            began(0),
            read(0, (1, 0)),
            read(1, (1, 1)),
            began(0),
            read(0, (1, 0)),
        ];
        assert_eq!(judge(events), Ok(()));
    }

    #[test]
    fn a_reader_that_skips_or_goes_back_is_found() {
        assert!(judge(vec![began(0), read(1, (1, 1))]).is_err());
        assert!(judge(vec![began(0), read(0, (1, 0)), read(0, (1, 0))]).is_err());
    }

    #[test]
    fn a_record_that_is_not_the_committed_one_is_found() {
        assert!(judge(vec![began(0), read(0, (1, 7))]).is_err());
    }

    #[test]
    fn a_record_that_is_never_committed_is_found() {
        assert!(judge(vec![began(2), read(2, (1, 2))]).is_err());
    }
}
