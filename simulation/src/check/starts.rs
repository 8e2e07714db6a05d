//! Start offsets of consumer groups in the partitions of the topic that all of them read: records before them
//! need not reach the group. A group that begins at the end does so only in the partitions that the topic had
//! at first. It must read those that the topic gains later from their beginning.

use std::collections::BTreeMap;

use super::replay::Replay;
use crate::history::{Call, Event, Place};
use crate::load::{MAIN, group_name};
use crate::observe::committed_model::Committed;

/// Start offsets of all groups, updated at each look.
#[derive(Debug, Default)]
pub struct Starts {
    replay: Replay,
    /// Groups that begin at the end, with the number of partitions that the topic may have had then. None for
    /// a group that has not had a member yet.
    at_the_end: BTreeMap<String, Option<u32>>,
    /// The largest number of partitions that a client has asked for so far.
    asked_for: u32,
    /// The first position of each group that was accepted in a partition.
    first: BTreeMap<(String, Place), u64>,
}

impl Starts {
    /// Takes in events, and then committed entries.
    pub fn learn<'a>(
        &mut self,
        news: impl IntoIterator<Item = &'a Event>,
        fresh: impl IntoIterator<Item = &'a Committed>,
    ) {
        for event in news {
            self.hear(event);
        }
        for one in fresh {
            for commit in self.replay.take(one) {
                let Some(place) = commit.place.filter(|place| place.topic == MAIN) else {
                    continue;
                };
                let key = (commit.group, place);
                self.first.entry(key).or_insert(commit.offset);
            }
        }
    }

    fn hear(&mut self, event: &Event) {
        match event {
            Event::BeginsAtTheEnd { group } => {
                self.at_the_end.insert(group_name(*group), None);
            }
            Event::Joined { who, .. } => {
                let met = self.at_the_end.get_mut(&group_name(who.group));
                if let Some(met @ None) = met {
                    *met = Some(self.asked_for);
                }
            }
            Event::Called {
                call:
                    Call::CreateTopic {
                        topic: MAIN,
                        partitions,
                        ..
                    }
                    | Call::GrowTopic {
                        topic: MAIN,
                        partitions,
                    },
                ..
            } => self.asked_for = self.asked_for.max(*partitions),
            _ => {}
        }
    }

    /// The first offset that the group must receive of a partition. None if the group begins at an end that
    /// it has not committed yet.
    pub fn of(&self, group: u32, place: Place) -> Option<u64> {
        self.of_named(&group_name(group), place)
    }

    /// The same for a group by its name.
    pub fn of_named(&self, group: &str, place: Place) -> Option<u64> {
        let Some(met) = self.at_the_end.get(group) else {
            return Some(0);
        };
        match met.unwrap_or(self.asked_for) <= place.partition {
            true => Some(0),
            false => self.first.get(&(group.to_owned(), place)).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::PLACE;
    use crate::check::fixtures::groups::{LIFE, commit, join};

    #[test]
    fn a_group_at_the_end_begins_where_it_committed_first_and_at_0_in_what_came_later() {
        let grow = |partitions| Event::Called {
            number: 0,
            call: Call::GrowTopic {
                topic: MAIN,
                partitions,
            },
        };
        let joined = Event::Joined {
            who: LIFE,
            handlers: 0,
        };
        let later = Place {
            partition: 1,
            ..PLACE
        };
        let mut starts = Starts::default();
        assert_eq!(starts.of(0, PLACE), Some(0), "not at the end");
        let news = [Event::BeginsAtTheEnd { group: 0 }, grow(1), joined, grow(2)];
        starts.learn(&news, []);
        assert_eq!((starts.of(0, PLACE), starts.of(0, later)), (None, Some(0)));
        let told = [join(1, "a"), commit(2, "a", 1, 5), commit(3, "a", 1, 9)];
        starts.learn([], &told);
        assert_eq!(starts.of(0, PLACE), Some(5));
        assert_eq!(starts.of(1, PLACE), Some(0));
    }
}
