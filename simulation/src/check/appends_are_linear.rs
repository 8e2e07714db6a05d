//! Appends are linearizable: if one of two records of a partition was acknowledged before the other was sent,
//! it has the lower offset.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Check, Seen};
use crate::history::{Event, Place, RecordName};

/// The check.
#[derive(Debug)]
pub struct AppendsAreLinear;

impl Check for AppendsAreLinear {
    fn name(&self) -> &'static str {
        "appends-are-linear"
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let mut sent: BTreeMap<RecordName, Duration> = BTreeMap::new();
        let mut placed: BTreeMap<Place, BTreeMap<u64, Times>> = BTreeMap::new();
        for (at, event) in seen.history {
            match event {
                Event::Sent { name, .. } => {
                    sent.insert(*name, *at);
                }
                Event::Acknowledged {
                    name,
                    place,
                    offset,
                } => {
                    let times = Times {
                        name: *name,
                        sent: sent.get(name).copied().unwrap_or_default(),
                        acknowledged: Some(*at),
                    };
                    placed.entry(*place).or_default().insert(*offset, times);
                }
                _ => {}
            }
        }
        // A record with an unknown outcome that is in the log was sent at some time, too.
        for (place, log) in seen.logs {
            for found in &log.records {
                let Some((name, at)) = found.name.and_then(|name| Some((name, *sent.get(&name)?)))
                else {
                    continue;
                };
                let known = placed.entry(*place).or_default().entry(found.offset);
                known.or_insert(Times {
                    name,
                    sent: at,
                    acknowledged: None,
                });
            }
        }
        for (place, records) in &placed {
            judge(records).map_err(|what| format!("{place}: {what}"))?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct Times {
    name: RecordName,
    sent: Duration,
    acknowledged: Option<Duration>,
}

/// In order of offset, no record may be acknowledged before one of a lower offset was sent.
fn judge(records: &BTreeMap<u64, Times>) -> Result<(), String> {
    let mut latest: Option<(u64, Times)> = None;
    for (offset, times) in records {
        if let Some((lower, before)) = latest
            && times.acknowledged.is_some_and(|at| at < before.sent)
        {
            return Err(format!(
                "record {:?} at offset {offset} was acknowledged at {:?}, before record {:?} at offset {lower} was sent at {:?}",
                times.name, times.acknowledged, before.name, before.sent
            ));
        }
        if latest.is_none_or(|(_, before)| times.sent > before.sent) {
            latest = Some((*offset, *times));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{CONTENT, Story, acknowledged, log, sent};

    #[test]
    fn records_that_were_under_way_together_may_stand_in_any_order() {
        let story = Story::of([
            sent((1, 0), CONTENT),
            sent((2, 0), CONTENT),
            acknowledged((1, 0), 1),
            acknowledged((2, 0), 0),
            sent((1, 1), CONTENT),
            acknowledged((1, 1), 2),
        ]);
        assert_eq!(story.end(&mut AppendsAreLinear), Ok(()));
    }

    #[test]
    fn a_record_that_stands_before_one_acknowledged_before_it_was_sent_is_found() {
        let events = [
            sent((1, 0), CONTENT),
            acknowledged((1, 0), 1),
            sent((2, 0), CONTENT),
        ];
        let known = events.iter().cloned().chain([acknowledged((2, 0), 0)]);
        assert!(Story::of(known).end(&mut AppendsAreLinear).is_err());
        let mut unknown = Story::of(events);
        unknown.logs = log(0, [(2, 0), (1, 0)]);
        assert!(unknown.end(&mut AppendsAreLinear).is_err());
    }
}
