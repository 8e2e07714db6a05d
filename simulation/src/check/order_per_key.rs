//! Records of one producer and key that were routed by one ring are in one partition, in the order in which
//! they were sent. Records routed by a newer ring were sent after those of an older one. No record is there
//! twice.

use std::collections::BTreeMap;

use super::{Check, Now, Seen};
use crate::history::{Place, RecordName};
use crate::load::{MAIN, WITHOUT_SEQUENCE};

/// The check.
#[derive(Debug, Default)]
pub struct OrderPerKey {
    seen: Order,
}

/// Positions of records so far.
#[derive(Debug, Default)]
struct Order {
    /// Partition of each key and ring.
    homes: BTreeMap<(u32, u32), Place>,
    all: BTreeMap<RecordName, (Place, u64)>,
    /// Numbers of the first and the last record of a producer and key that a ring routed.
    sent: BTreeMap<(u32, u32, u32), (u64, u64)>,
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
                let routed = record.key.map(|key| (key, record.ring));
                self.seen.add(place, record.offset, record.name, routed)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let mut order = Order::default();
        for (place, log) in seen.logs {
            let group = seen.truth.at(*place).map(|(_, group)| group);
            for found in &log.records {
                // Readers do not learn the ring. If no look saw it, the order cannot be judged, only that no
                // record is there twice.
                let known = group.and_then(|group| group.record(found.offset));
                let routed = found.key.zip(known.map(|record| record.ring));
                order.add(*place, found.offset, found.name, routed)?;
            }
        }
        Ok(())
    }
}

impl Order {
    /// Adds the next record of a partition, with its key and ring.
    fn add(
        &mut self,
        place: Place,
        offset: u64,
        name: Option<RecordName>,
        routed: Option<(u32, u32)>,
    ) -> Result<(), String> {
        let Some(name @ (producer, _)) = name else {
            return Ok(());
        };
        if let Some((other, at)) = self.all.insert(name, (place, offset)) {
            return Err(format!(
                "record {name:?} is at {other}, offset {at}, and also at {place}, offset {offset}"
            ));
        }
        let Some((key, ring)) = routed else {
            return Ok(());
        };
        let home = self.homes.entry((key, ring)).or_insert(place);
        if *home != place {
            return Err(format!(
                "key {key} is in {home} by ring {ring}, and at {place}, offset {offset}"
            ));
        }
        if producer >= WITHOUT_SEQUENCE {
            return Ok(());
        }
        self.follows(name, (key, ring))
            .map_err(|what| format!("{place}, offset {offset}: {what}"))
    }

    fn follows(
        &mut self,
        (producer, number): RecordName,
        (key, ring): (u32, u32),
    ) -> Result<(), String> {
        let of = |ring| (producer, key, ring);
        let wrong = |before: bool, other: u64, by: u32| {
            let stands = if before { "before" } else { "after" };
            Err(format!(
                "record {number} of producer {producer} and key {key}, routed by ring {ring}, stands {stands} {other}, routed by ring {by}"
            ))
        };
        let own = self.sent.entry(of(ring)).or_insert((number, number));
        if own.1 > number {
            return wrong(false, own.1, ring);
        }
        own.1 = number;
        let older = self.sent.range(of(0)..of(ring)).next_back();
        if let Some(((_, _, by), (_, last))) = older.filter(|(_, (_, last))| *last >= number) {
            return wrong(false, *last, *by);
        }
        let newer = self.sent.range(of(ring + 1)..=of(u32::MAX)).next();
        if let Some(((_, _, by), (first, _))) = newer.filter(|(_, (first, _))| *first <= number) {
            return wrong(true, *first, *by);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{PLACE, Story, committed, committed_by_ring, log, truth_of};
    use crate::observe::committed_model::Committed;

    fn judge(names: &[RecordName]) -> Result<(), String> {
        let seen_late = Story {
            logs: log(0, names.iter().copied()),
            truth: truth_of(names),
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

    /// A record that a ring routed to one of two partitions.
    fn by_ring(ring: u32, partition: u32, number: u64) -> Committed {
        let mut one = committed_by_ring(ring, number, &[(1, number)]);
        one.place = Some(Place { partition, ..PLACE });
        one
    }

    fn judge_rings(fresh: Vec<Committed>) -> Result<(), String> {
        let story = Story {
            fresh,
            ..Story::default()
        };
        story.look(&mut OrderPerKey::default())
    }

    #[test]
    fn a_key_may_move_with_its_ring_in_whichever_order_partitions_are_seen() {
        let told = [by_ring(1, 0, 1), by_ring(1, 0, 2), by_ring(2, 1, 3)];
        assert_eq!(judge_rings(told.to_vec()), Ok(()));
        let [first, second, moved] = told;
        assert_eq!(judge_rings(vec![moved, first, second]), Ok(()));
    }

    #[test]
    fn a_key_in_two_partitions_of_one_ring_does_not_pass() {
        assert!(judge_rings(vec![by_ring(1, 0, 1), by_ring(1, 1, 2)]).is_err());
    }

    #[test]
    fn a_record_by_an_older_ring_that_was_sent_after_one_by_a_newer_does_not_pass() {
        let told = [by_ring(1, 0, 1), by_ring(1, 0, 3), by_ring(2, 1, 2)];
        assert!(judge_rings(told.to_vec()).is_err());
        let [first, late, moved] = told;
        assert!(judge_rings(vec![moved, first, late]).is_err());
    }
}
