//! A member receives the records of a partition in order from assignment to revocation. A member that
//! processes one record after another receives them without gaps. Concurrent handlers receive the records of
//! each key in order, one at a time.

use std::collections::BTreeMap;

use super::{Check, Now, Seen};
use crate::history::{Event, Life, Place};

/// The check.
#[derive(Debug, Default)]
pub struct ProcessedInOrder {
    handlers: BTreeMap<Life, usize>,
    /// Next offset of each partition that is assigned to a member; none before its first record.
    owned: BTreeMap<(Life, Place), Option<u64>>,
    /// Last record of each key that a handler began, with its progress.
    keys: BTreeMap<(Life, Place, Option<u32>), Begun>,
    /// Ranges of offsets that were left out. They must have been trimmed.
    left_out: Vec<(Life, Place, u64, u64)>,
}

#[derive(Debug, Default)]
struct Begun {
    last: Option<u64>,
    under_way: Option<u64>,
}

impl Check for ProcessedInOrder {
    fn name(&self) -> &'static str {
        "processed-in-order"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for (at, event) in now.news {
            self.hear(event)
                .map_err(|what| format!("{what}, at {at:?}"))?;
        }
        Ok(())
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for (who, place, from, to) in &self.left_out {
            let group = seen.truth.at(*place).map(|(_, group)| group);
            let there = group.is_some_and(|group| !group.has_gaps && group.log_start < *to);
            if there && seen.logs.contains_key(place) {
                return Err(format!(
                    "{who} was given offset {to} of {place} where {from} was to come, and that was not trimmed"
                ));
            }
        }
        Ok(())
    }
}

impl ProcessedInOrder {
    fn hear(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Joined { who, handlers } => {
                self.handlers.insert(*who, *handlers);
            }
            Event::Assigned { who, place } => {
                self.owned.insert((*who, *place), None);
                let begun = self.keys.range_mut((*who, *place, None)..);
                let begun = begun.take_while(|((of, at, _), _)| (of, at) == (who, place));
                begun.for_each(|(_, begun)| begun.last = None);
            }
            Event::Taken { who, place, .. } => {
                self.owned.remove(&(*who, *place));
            }
            Event::Delivered {
                who,
                place,
                offset,
                key,
                ..
            } => match self.handlers.get(who) {
                Some(0) => return self.in_turn(*who, *place, *offset),
                _ => return self.by_key((*who, *place, *key), *offset),
            },
            Event::Processed { who, place, offset } => {
                let begun = self.keys.range_mut((*who, *place, None)..);
                let begun = begun.take_while(|((of, at, _), _)| (of, at) == (who, place));
                let done = Some(*offset);
                for (_, begun) in begun {
                    begun.under_way = begun.under_way.filter(|_| begun.under_way != done);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn in_turn(&mut self, who: Life, place: Place, offset: u64) -> Result<(), String> {
        let Some(next) = self.owned.get_mut(&(who, place)) else {
            return Err(format!(
                "{who} was given offset {offset} of {place}, which is not its own"
            ));
        };
        let expected = next.replace(offset + 1).unwrap_or(offset);
        if offset < expected {
            return Err(format!(
                "{who} was given offset {offset} of {place} where {expected} was to come"
            ));
        }
        if offset > expected {
            self.left_out.push((who, place, expected, offset));
        }
        Ok(())
    }

    fn by_key(&mut self, of: (Life, Place, Option<u32>), offset: u64) -> Result<(), String> {
        let (who, place, key) = of;
        let begun = self.keys.entry(of).or_default();
        let (last, under_way) = (begun.last.replace(offset), begun.under_way.replace(offset));
        if under_way.is_some() || last.is_some_and(|last| last >= offset) {
            return Err(format!(
                "{who} began with offset {offset} of {place}, key {key:?}, after {last:?} and with {under_way:?} under way"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::groups::{LIFE, delivered, processed};
    use crate::check::fixtures::{GROUP, PLACE, Story, log, truth_of};

    const ASSIGNED: Event = Event::Assigned {
        who: LIFE,
        place: PLACE,
    };
    const LOST: Event = Event::Taken {
        who: LIFE,
        place: PLACE,
        lost: true,
    };

    fn judge(handlers: usize, start: u64, events: &[Event]) -> Result<(), String> {
        let joined = Event::Joined {
            who: LIFE,
            handlers,
        };
        let mut story = Story::of(std::iter::once(joined).chain(events.iter().cloned()));
        story.logs = log(start, (start..9).map(|number| (1, number)));
        story.truth = truth_of(&[(1, 0)]);
        story.truth.group_mut(GROUP).expect("a group").log_start = start;
        let mut check = ProcessedInOrder::default();
        story.look(&mut check)?;
        story.end(&mut check)
    }

    #[test]
    fn one_after_the_other_and_again_after_a_new_assignment_passes() {
        let events = [
            ASSIGNED,
            delivered(0),
            delivered(1),
            LOST,
            ASSIGNED,
            delivered(0),
        ];
        assert_eq!(judge(0, 0, &events), Ok(()));
        let trimmed = [ASSIGNED, delivered(0), delivered(3)];
        assert_eq!(judge(0, 3, &trimmed), Ok(()));
    }

    #[test]
    fn a_gap_a_step_back_and_what_is_not_the_members_own_are_found() {
        assert!(judge(0, 0, &[ASSIGNED, delivered(0), delivered(2)]).is_err());
        assert!(judge(0, 0, &[ASSIGNED, delivered(1), delivered(0)]).is_err());
        assert!(judge(0, 0, &[ASSIGNED, LOST, delivered(0)]).is_err());
    }

    #[test]
    fn handlers_take_a_key_in_order_and_one_record_at_a_time() {
        let fine = [ASSIGNED, delivered(0), processed(0), delivered(2)];
        assert_eq!(judge(4, 0, &fine), Ok(()));
        assert!(judge(4, 0, &[ASSIGNED, delivered(0), delivered(1)]).is_err());
        let back = [ASSIGNED, delivered(1), processed(1), delivered(0)];
        assert!(judge(4, 0, &back).is_err());
    }
}
