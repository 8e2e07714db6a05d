//! Records of one producer and key stand in one partition, in the order in which they were sent, and
//! none is there twice.

use std::collections::BTreeMap;

use super::{Check, Seen};
use crate::history::{Place, RecordName};
use crate::load::WITHOUT_SEQUENCE;

/// The check.
#[derive(Debug)]
pub struct OrderPerKey;

impl Check for OrderPerKey {
    fn name(&self) -> &'static str {
        "order-per-key"
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let mut homes: BTreeMap<u32, Place> = BTreeMap::new();
        let mut all: BTreeMap<RecordName, (Place, u64)> = BTreeMap::new();
        for (place, log) in seen.logs {
            let mut last = BTreeMap::new();
            for found in &log.records {
                let Some(name @ (producer, number)) = found.name else {
                    continue;
                };
                let here = (*place, found.offset);
                if let Some((place, offset)) = all.insert(name, here) {
                    return Err(format!(
                        "record {name:?} is at {}, offset {}, and also at {place}, offset {offset}",
                        here.0, here.1
                    ));
                }
                let Some(key) = found.key else { continue };
                let home = homes.entry(key).or_insert(*place);
                if home != place {
                    return Err(format!(
                        "key {key} is in {home}, and at {place}, offset {}",
                        found.offset
                    ));
                }
                let before = last.insert((producer, key), number);
                let behind = before.is_some_and(|before| before >= number);
                if behind && producer < WITHOUT_SEQUENCE {
                    return Err(format!(
                        "{place}, offset {}: record {number} of producer {producer} and key {key} stands after {before:?}",
                        found.offset
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::made::{Story, log};

    fn judge(names: &[RecordName]) -> Result<(), String> {
        let mut story = Story::default();
        story.logs = log(0, names.iter().copied());
        story.end(&mut OrderPerKey)
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
        let mut story = Story::default();
        story.logs = log(0, [(1, 0)]);
        let one = story.log_mut().clone();
        let other = Place {
            topic: 0,
            partition: 1,
        };
        story.logs.insert(other, one);
        assert!(story.end(&mut OrderPerKey).is_err());
    }
}
