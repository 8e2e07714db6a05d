//! Final invariants. A pure function of the records sent, their outcomes, and the records read.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::history::{Name, Outcome, Place};
use crate::readers::Seen;

/// Counts of records by outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Acknowledged, and read exactly once.
    pub acknowledged: u64,
    /// Unknown outcome, and read.
    pub unknown_there: u64,
    /// Unknown outcome, and not read.
    pub unknown_lost: u64,
    /// Refused, and not read.
    pub refused: u64,
    /// Number of keys.
    pub keys: u64,
}

/// Compares the content of each partition with the records sent. Returns counts, or the first violation.
pub fn check(sent: &[(Name, Outcome)], read: &[Seen]) -> Result<Found, String> {
    let mut places: BTreeMap<Name, Place> = BTreeMap::new();
    for (partition, seen) in (0..).zip(read) {
        for (&offset, &name) in seen {
            let place = Place { partition, offset };
            if let Some(before) = places.insert(name, place) {
                return Err(format!(
                    "{name:?} is there twice, at {before:?} and {place:?}"
                ));
            }
        }
    }
    let mut found = Found::default();
    let mut last: BTreeMap<String, (Name, Place)> = BTreeMap::new();
    for (name, outcome) in sent {
        let place = places.remove(name);
        match (outcome, place) {
            (Outcome::Acknowledged(said), Some(is)) if *said == is => found.acknowledged += 1,
            (Outcome::Acknowledged(said), Some(is)) => {
                return Err(format!(
                    "{name:?} was acknowledged at {said:?}, and is at {is:?}"
                ));
            }
            (Outcome::Acknowledged(said), None) => {
                return Err(format!("{name:?}, acknowledged at {said:?}, is lost"));
            }
            (Outcome::Unknown | Outcome::UnderWay, Some(_)) => found.unknown_there += 1,
            (Outcome::Unknown | Outcome::UnderWay, None) => found.unknown_lost += 1,
            (Outcome::Refused, Some(is)) => {
                return Err(format!(
                    "{name:?} was refused for certain, and is at {is:?}"
                ));
            }
            (Outcome::Refused, None) => found.refused += 1,
        }
        let Some(place) = place else { continue };
        match last.insert(name.key(), (*name, place)) {
            Some((before, at)) if at.partition != place.partition || at.offset >= place.offset => {
                return Err(format!(
                    "the key {} is out of order: {before:?} at {at:?} was sent before {name:?} at {place:?}",
                    name.key()
                ));
            }
            _ => {}
        }
    }
    if let Some((name, place)) = places.first_key_value() {
        return Err(format!("{name:?} at {place:?} was never sent"));
    }
    found.keys = last.len() as u64;
    Ok(found)
}

/// Checks that a reader that resumed repeatedly read exactly the content of the log.
pub fn check_reader(partition: u32, seen: &Seen, holds: &Seen) -> Result<(), String> {
    if seen == holds {
        return Ok(());
    }
    let missed = holds.iter().find(|(offset, _)| !seen.contains_key(offset));
    let else_seen = seen
        .iter()
        .find(|(offset, name)| holds.get(offset) != Some(name));
    Err(format!(
        "the reader of partition {partition} missed {missed:?}, and saw {else_seen:?} which is not there"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u32) -> Name {
        Name {
            producer: 0,
            life: 0,
            number,
        }
    }

    fn at(offset: u64) -> Outcome {
        Outcome::Acknowledged(Place {
            partition: 0,
            offset,
        })
    }

    /// Three records of one key: two acknowledged, with one of unknown outcome between them.
    fn history() -> (Vec<(Name, Outcome)>, Vec<Seen>) {
        let sent = vec![
            (name(0), at(0)),
            (name(40), Outcome::Unknown),
            (name(80), at(1)),
        ];
        let read = vec![Seen::from([(0, name(0)), (1, name(80))])];
        (sent, read)
    }

    #[test]
    fn a_history_without_fault_passes_whether_or_not_the_unknown_is_there() {
        let (mut sent, mut read) = history();
        let found = check(&sent, &read).unwrap();
        assert_eq!((found.acknowledged, found.unknown_lost), (2, 1));
        read[0] = Seen::from([(0, name(0)), (1, name(40)), (2, name(80))]);
        sent[2].1 = at(2);
        let found = check(&sent, &read).unwrap();
        assert_eq!((found.acknowledged, found.unknown_there), (2, 1));
    }

    #[test]
    fn every_fault_is_seen() {
        type Fault = fn(&mut Vec<(Name, Outcome)>, &mut Vec<Seen>);
        let faults: [(&str, Fault); 6] = [
            ("lost", |_, read| read[0].retain(|offset, _| *offset != 1)),
            ("twice", |_, read| read[0].extend([(9, name(0))])),
            ("acknowledged at", |sent, _| sent[2].1 = at(7)),
            ("refused", |sent, _| sent[2].1 = Outcome::Refused),
            ("never sent", |_, read| read[0].extend([(5, name(7))])),
            ("out of order", |sent, read| {
                read[0] = Seen::from([(0, name(80)), (1, name(0))]);
                sent[0].1 = at(1);
                sent[2].1 = at(0);
            }),
        ];
        for (named, fault) in faults {
            let (mut sent, mut read) = history();
            fault(&mut sent, &mut read);
            let error = check(&sent, &read).unwrap_err();
            assert!(error.contains(named), "{named}: {error}");
        }
    }

    #[test]
    fn a_reader_that_missed_a_record_is_seen() {
        let (_, read) = history();
        let mut seen = read[0].clone();
        assert_eq!(check_reader(0, &seen, &read[0]), Ok(()));
        seen.remove(&1);
        assert!(check_reader(0, &seen, &read[0]).is_err());
    }
}
