//! A reader with a filter receives exactly the records that match: it receives no other, and the offsets that
//! it passed hold no match.

use std::collections::BTreeMap;

use super::{Check, Seen};
use crate::history::{Event, RecordName};
use crate::load::SIEVE;
use crate::load::settings::Sieving;

/// The check.
#[derive(Debug)]
pub struct FiltersAreExact;

impl Check for FiltersAreExact {
    fn name(&self) -> &'static str {
        "filters-are-exact"
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let asked = seen.history.iter().find_map(|(_, event)| match event {
            Event::Sifts(sieving) => Some(*sieving),
            _ => None,
        });
        match asked {
            Some(sieving) => judge(sieving, seen),
            None => Ok(()),
        }
    }
}

fn judge(sieving: Sieving, seen: &Seen<'_>) -> Result<(), String> {
    let mut keys: BTreeMap<RecordName, Option<u32>> = BTreeMap::new();
    let mut passed = Vec::new();
    for (at, event) in seen.history {
        match event {
            Event::Sent { name, key, .. } => {
                keys.insert(*name, *key);
            }
            Event::Passed { from, to, .. } => passed.push((*from, *to)),
            Event::Read {
                reader: SIEVE,
                offset,
                name,
                ..
            } => {
                let key = name.and_then(|name| keys.get(&name).copied().flatten());
                if !sieving.wants(key) {
                    return Err(format!(
                        "{} let offset {offset} through at {at:?}, {name:?} with key {key:?}",
                        sieving.expression()
                    ));
                }
            }
            _ => {}
        }
    }
    let place = sieving.place();
    let acknowledged = seen.history.iter().filter_map(|(_, event)| match event {
        Event::Acknowledged {
            name,
            place: at,
            offset,
        } if *at == place => Some((*offset, keys.get(name).copied().flatten())),
        _ => None,
    });
    let log = seen.logs.get(&place);
    let held = log.into_iter().flat_map(|log| &log.records);
    let held = held.map(|found| (found.offset, found.key));
    for (offset, key) in acknowledged.chain(held) {
        // In order and without overlap.
        let nearest = passed.partition_point(|(_, to)| *to <= offset);
        let over = passed.get(nearest).is_some_and(|(from, _)| *from <= offset);
        if over && sieving.wants(key) {
            return Err(format!(
                "{} led past offset {offset} of {place}, which has key {key:?}",
                sieving.expression()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{CONTENT, PLACE, Story, acknowledged};

    const SIEVING: Sieving = Sieving {
        partition: 0,
        digit: 3,
    };

    /// Records 0 and 1, with keys 13 and 14.
    fn story(events: impl IntoIterator<Item = Event>) -> Result<(), String> {
        let sent = [13, 14]
            .into_iter()
            .zip(0..)
            .map(|(key, number)| Event::Sent {
                name: (1, number),
                topic: 0,
                key: Some(key),
                content: CONTENT,
            });
        let both = [acknowledged((1, 0), 0), acknowledged((1, 1), 1)];
        let asked = [Event::Sifts(SIEVING)];
        let story = Story::of(asked.into_iter().chain(sent).chain(both).chain(events));
        story.end(&mut FiltersAreExact)
    }

    fn read(offset: u64) -> Event {
        Event::Read {
            reader: SIEVE,
            place: PLACE,
            offset,
            name: Some((1, offset)),
            content: CONTENT,
        }
    }

    fn passed(from: u64, to: u64) -> Event {
        Event::Passed {
            reader: SIEVE,
            place: PLACE,
            from,
            to,
        }
    }

    #[test]
    fn who_gets_what_matches_and_is_led_past_the_rest_passes() {
        assert_eq!(story([read(0), passed(1, 2)]), Ok(()));
    }

    #[test]
    fn what_does_not_match_and_comes_is_found() {
        assert!(story([read(0), read(1)]).is_err());
    }

    #[test]
    fn what_matches_and_does_not_come_is_found() {
        assert!(story([passed(0, 2)]).is_err());
        assert!(story([passed(0, 1), passed(1, 2)]).is_err());
    }
}
