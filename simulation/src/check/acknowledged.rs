//! Every acknowledged record is in the log, once, at the offset that was told.

use super::{Check, Seen};
use crate::history::Event;

/// The check.
#[derive(Debug)]
pub struct AcknowledgedIsThere;

impl Check for AcknowledgedIsThere {
    fn name(&self) -> &'static str {
        "acknowledged-is-there"
    }

    fn end(&self, seen: &Seen<'_>) -> Result<(), String> {
        for (at, event) in seen.history {
            let Event::Acknowledged {
                name,
                partition,
                offset,
            } = event
            else {
                continue;
            };
            let log = seen.logs.get(partition).map_or(&[][..], |log| log);
            let place = log.binary_search_by_key(offset, |found| found.offset);
            let there = place.ok().map(|place| log[place].name);
            if there != Some(*name) {
                return Err(format!(
                    "record {name:?} was acknowledged at {partition}/{offset} at {at:?}; there is {there:?}"
                ));
            }
        }
        Ok(())
    }
}
