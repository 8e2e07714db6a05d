//! Offset lookups. The end is after every record that was acknowledged before the lookup. The beginning is at
//! most the log start offset. A lookup by time returns the first record at or after that time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Check, Seen};
use crate::history::{Answer, Call, Event, Place};
use crate::observe::committed_model::Group;

/// The check.
#[derive(Debug)]
pub struct LookupsAreRight;

/// A lookup under way.
#[derive(Debug)]
struct Asked<'a> {
    call: &'a Call,
    at: Duration,
    /// The offset after the last record that was acknowledged or read before the lookup.
    end_before: u64,
}

impl Check for LookupsAreRight {
    fn name(&self) -> &'static str {
        "lookups-are-right"
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let mut ends: BTreeMap<Place, u64> = BTreeMap::new();
        let mut asked: BTreeMap<u64, Asked<'_>> = BTreeMap::new();
        for (at, event) in seen.history {
            match event {
                Event::Acknowledged { place, offset, .. } | Event::Read { place, offset, .. } => {
                    let end = ends.entry(*place).or_default();
                    *end = (offset + 1).max(*end);
                }
                Event::Called { number, call } => {
                    let end_before = place_of(call).and_then(|place| ends.get(&place).copied());
                    let question = Asked {
                        call,
                        at: *at,
                        end_before: end_before.unwrap_or_default(),
                    };
                    asked.insert(*number, question);
                }
                Event::Answered {
                    number,
                    answer: Answer::Offset(offset),
                } => {
                    let Some(question) = asked.get(number) else {
                        continue;
                    };
                    judge(seen, question, *offset).map_err(|what| {
                        format!(
                            "{:?}, asked at {:?}, was answered at {at:?} with {offset}: {what}",
                            question.call, question.at
                        )
                    })?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn place_of(call: &Call) -> Option<Place> {
    match call {
        Call::Beginning { place } | Call::End { place } | Call::AtTime { place, .. } => {
            Some(*place)
        }
        _ => None,
    }
}

fn judge(seen: &Seen<'_>, question: &Asked<'_>, offset: u64) -> Result<(), String> {
    let place = place_of(question.call);
    let Some(log) = place.and_then(|place| seen.logs.get(&place)) else {
        return Ok(());
    };
    let group = place.and_then(|place| seen.truth.at(place));
    match question.call {
        Call::Beginning { .. } if offset > log.start => {
            Err(format!("the log begins at {}", log.start))
        }
        Call::End { .. } if offset < question.end_before => Err(format!(
            "{} was acknowledged before",
            question.end_before - 1
        )),
        Call::End { .. } if offset > log.end() => Err(format!("the log ends at {}", log.end())),
        Call::AtTime { time_ms, .. } => group.map_or(Ok(()), |(_, group)| {
            by_time(group, log.start, question, *time_ms, offset)
        }),
        _ => Ok(()),
    }
}

fn by_time(
    group: &Group,
    log_start: u64,
    question: &Asked<'_>,
    time_ms: i64,
    offset: u64,
) -> Result<(), String> {
    // Beyond the records that existed at the lookup, the answer may be the end of the log at that time.
    let there = group
        .record(offset)
        .filter(|_| offset < question.end_before);
    if let Some(record) = there.filter(|record| record.timestamp_ms < time_ms) {
        return Err(format!("{record:?} is earlier than {time_ms}"));
    }
    // Records that are trimmed in the end may have been trimmed already at the lookup.
    let passed = group.records.iter().find(|record| {
        (log_start..offset.min(question.end_before)).contains(&record.offset)
            && record.timestamp_ms >= time_ms
    });
    match passed {
        Some(record) => Err(format!("{record:?} is not earlier than {time_ms}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{PLACE, Story, acknowledged, log, truth_at};

    /// Records 0 to 2 at 10, 20 and 30 ms, all acknowledged, then one lookup.
    fn judge(call: Call, offset: u64) -> Result<(), String> {
        let mut story = Story::of([
            acknowledged((1, 2), 2),
            Event::Called { number: 0, call },
            Event::Answered {
                number: 0,
                answer: Answer::Offset(offset),
            },
        ]);
        story.truth = truth_at(&[10, 20, 30]);
        story.logs = log(0, (0..3).map(|number| (1, number)));
        story.end(&mut LookupsAreRight)
    }

    fn at(time_ms: i64) -> Call {
        Call::AtTime {
            place: PLACE,
            time_ms,
        }
    }

    #[test]
    fn answers_that_are_so_pass() {
        assert_eq!(judge(Call::Beginning { place: PLACE }, 0), Ok(()));
        assert_eq!(judge(Call::End { place: PLACE }, 3), Ok(()));
        assert_eq!(judge(at(20), 1), Ok(()));
        assert_eq!(judge(at(11), 1), Ok(()));
        assert_eq!(judge(at(31), 3), Ok(()));
    }

    #[test]
    fn answers_that_are_not_so_are_found() {
        assert!(judge(Call::Beginning { place: PLACE }, 1).is_err());
        assert!(judge(Call::End { place: PLACE }, 2).is_err());
        assert!(judge(Call::End { place: PLACE }, 4).is_err());
        assert!(judge(at(20), 0).is_err());
        assert!(judge(at(20), 2).is_err());
        assert!(judge(at(20), 3).is_err());
    }
}
