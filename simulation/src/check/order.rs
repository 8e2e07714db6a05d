//! Records of one producer and key stand in one partition, in the order in which they were sent, and
//! none is there twice.

use std::collections::BTreeMap;

use super::{Check, Now, Seen};
use crate::history::{Place, RecordName};
use crate::load::{MAIN, WITHOUT_SEQUENCE};

/// The check.
#[derive(Debug, Default)]
pub struct OrderPerKey {
    seen: Order,
}

/// What stands where, so far.
#[derive(Debug, Default)]
struct Order {
    homes: BTreeMap<u32, Place>,
    all: BTreeMap<RecordName, (Place, u64)>,
    last: BTreeMap<(u32, u32), u64>,
}

impl Check for OrderPerKey {
    fn name(&self) -> &'static str {
        "order-per-key"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for one in now.fresh {
            let Some(place) = one.place.filter(|place| place.topic == MAIN) else {
                continue;
            };
            for record in &one.records {
                self.seen
                    .add(place, record.offset, record.name, record.key)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let mut order = Order::default();
        for (place, log) in seen.logs {
            for found in &log.records {
                order.add(*place, found.offset, found.name, found.key)?;
            }
        }
        Ok(())
    }
}

impl Order {
    /// Adds the next record of a partition.
    fn add(
        &mut self,
        place: Place,
        offset: u64,
        name: Option<RecordName>,
        key: Option<u32>,
    ) -> Result<(), String> {
        let Some(name @ (producer, number)) = name else {
            return Ok(());
        };
        if let Some((other, at)) = self.all.insert(name, (place, offset)) {
            return Err(format!(
                "record {name:?} is at {other}, offset {at}, and also at {place}, offset {offset}"
            ));
        }
        let Some(key) = key else { return Ok(()) };
        let home = self.homes.entry(key).or_insert(place);
        if *home != place {
            return Err(format!(
                "key {key} is in {home}, and at {place}, offset {offset}"
            ));
        }
        let before = self.last.insert((producer, key), number);
        if before.is_some_and(|before| before >= number) && producer < WITHOUT_SEQUENCE {
            return Err(format!(
                "{place}, offset {offset}: record {number} of producer {producer} and key {key} stands after {before:?}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::made::{Story, committed, log};

    fn judge(names: &[RecordName]) -> Result<(), String> {
        let seen_late = Story {
            logs: log(0, names.iter().copied()),
            ..Story::default()
        };
        let seen_early = Story {
            fresh: vec![committed(0, names)],
            ..Story::default()
        };
        let judged = seen_late.end(&mut OrderPerKey::default());
        let early = seen_early.look(&mut OrderPerKey::default());
        assert_eq!(judged.is_ok(), early.is_ok(), "{judged:?}, {early:?}");
        judged
    }

    #[test]
    fn records_in_the_order_in_which_they_were_sent_pass() {
        assert_eq!(judge(&[(1, 0), (2, 0), (1, 4), (2, 1)]), Ok(()));
    }

    #[test]
    fn records_out_of_order_or_there_twice_do_not() {
        assert!(judge(&[(1, 4), (1, 0)]).is_err());
        assert!(judge(&[(1, 0), (1, 0)]).is_err());
        let twice = (WITHOUT_SEQUENCE, 1);
        assert!(judge(&[twice, (1, 0), twice]).is_err());
    }

    #[test]
    fn what_has_no_sequence_may_come_behind_a_later_one() {
        let of = |number| (WITHOUT_SEQUENCE, number);
        assert_eq!(judge(&[of(2), of(1)]), Ok(()));
    }

    #[test]
    fn a_key_in_two_partitions_does_not_pass() {
        let mut story = Story {
            logs: log(0, [(1, 0)]),
            ..Story::default()
        };
        let one = story.log_mut().clone();
        let other = Place {
            topic: 0,
            partition: 1,
        };
        story.logs.insert(other, one);
        assert!(story.end(&mut OrderPerKey::default()).is_err());
    }
}
