//! Evens out assignments that single moves cannot. Along a chain, each member passes on a partition of one
//! topic, and its receiver one of another topic, until a receiver has room. An assignment that no such chain
//! improves is as even as subscriptions allow. The result is the same on every replica: the search goes in
//! order, and bounds its work by a count, not by time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::TopicPartitionId;
use super::assign::Subscribers;

/// Bound of the work for one assignment: members visited in the search for chains. The assignment stays as it
/// is by then. The bound is part of rules 1.
pub(super) const STEPS: u64 = 4_000_000;

/// Partitions of each topic that each member has.
type Held<'a> = BTreeMap<&'a str, BTreeMap<u64, BTreeSet<TopicPartitionId>>>;

/// Member, and its topic, that would give a partition to each member.
type Givers<'a> = BTreeMap<&'a str, (&'a str, u64)>;

/// Passes partitions on along chains, each from a member with most to one with at least two fewer. Partitions
/// that had no owner before are passed on first.
pub(super) fn even_out<'a>(
    subscribers: &Subscribers<'a>,
    targets: &mut BTreeMap<TopicPartitionId, &'a str>,
    load: &mut BTreeMap<&'a str, usize>,
    fresh: &BTreeSet<TopicPartitionId>,
    steps: u64,
) {
    let mut held = Held::new();
    for (place, member) in &*targets {
        let topics = held.entry(member).or_default();
        topics.entry(place.topic_id).or_default().insert(*place);
    }
    let mut search = Search {
        subscribers,
        settled: BTreeSet::new(),
        steps,
    };
    while let Some(most) = search.most(load) {
        let Some((givers, heir)) = search.chain(most, &held, load) else {
            if search.steps == 0 {
                return;
            }
            continue;
        };
        let giver = pass_on(heir, &givers, fresh, &mut held, targets);
        *load.entry(giver).or_insert(1) -= 1;
        *load.entry(heir).or_insert(0) += 1;
    }
}

struct Search<'s, 'a> {
    subscribers: &'s Subscribers<'a>,
    /// Members from which no chain improves the assignment, now or after any other chain: all members that
    /// they reach have at most one partition fewer.
    settled: BTreeSet<&'a str>,
    steps: u64,
}

impl<'a> Search<'_, 'a> {
    /// Highest load of a member that is not settled.
    fn most(&self, load: &BTreeMap<&'a str, usize>) -> Option<usize> {
        let open = load.iter().filter(|(id, _)| !self.settled.contains(*id));
        open.map(|(_, count)| *count).max()
    }

    /// Finds the shortest chain from a member with `most`. If there is none, settles all members reached.
    fn chain(
        &mut self,
        most: usize,
        held: &Held<'a>,
        load: &BTreeMap<&'a str, usize>,
    ) -> Option<(Givers<'a>, &'a str)> {
        let open = load.iter().filter(|(id, _)| !self.settled.contains(*id));
        let full = open.filter(|(_, count)| **count == most);
        let mut queue: VecDeque<&str> = full.map(|(id, _)| *id).collect();
        let mut reached: BTreeSet<&str> = queue.iter().copied().collect();
        let mut looked_at: BTreeSet<u64> = BTreeSet::new();
        let mut givers = Givers::new();
        while let Some(giver) = queue.pop_front() {
            let topics = held.get(giver).into_iter().flat_map(BTreeMap::keys);
            for topic_id in topics.copied() {
                self.steps = self.steps.saturating_sub(1);
                if !looked_at.insert(topic_id) {
                    continue;
                }
                for heir in self.subscribers.get(&topic_id).into_iter().flatten() {
                    self.steps = self.steps.saturating_sub(1);
                    if self.steps == 0 {
                        return None;
                    }
                    if self.settled.contains(heir) || !reached.insert(heir) {
                        continue;
                    }
                    givers.insert(heir, (giver, topic_id));
                    if load.get(heir).copied().unwrap_or(0) + 2 <= most {
                        return Some((givers, heir));
                    }
                    queue.push_back(heir);
                }
            }
        }
        self.settled.extend(reached);
        None
    }
}

/// Passes on a partition at each link of the chain that ends with `heir`. Returns the member at its
/// beginning.
fn pass_on<'a>(
    heir: &'a str,
    givers: &Givers<'a>,
    fresh: &BTreeSet<TopicPartitionId>,
    held: &mut Held<'a>,
    targets: &mut BTreeMap<TopicPartitionId, &'a str>,
) -> &'a str {
    let mut last = heir;
    while let Some((giver, topic_id)) = givers.get(last).copied() {
        let topics = held.entry(giver).or_default();
        let places = topics.entry(topic_id).or_default();
        let mut last_first = places.iter().rev();
        let place = last_first.find(|place| fresh.contains(place));
        let place = place.or(places.last()).copied();
        if let Some(place) = place {
            places.remove(&place);
        }
        if places.is_empty() {
            topics.remove(&topic_id);
        }
        if let Some(place) = place {
            targets.insert(place, last);
            let topics = held.entry(last).or_default();
            topics.entry(topic_id).or_default().insert(place);
        }
        last = giver;
    }
    last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::assign::targets;
    use super::*;

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    fn places(sizes: &[u32]) -> Vec<TopicPartitionId> {
        let topics = sizes.iter().zip(0..);
        let all = topics.flat_map(|(size, topic_id)| {
            (0..*size).map(move |partition| TopicPartitionId {
                topic_id,
                partition,
            })
        });
        all.collect()
    }

    fn loads(
        subscribers: &Subscribers<'static>,
        targets: &BTreeMap<TopicPartitionId, &'static str>,
    ) -> Vec<usize> {
        let members: BTreeSet<&str> = subscribers.values().flatten().copied().collect();
        let count = |id: &str| targets.values().filter(|owner| **owner == id).count();
        members.into_iter().map(count).collect()
    }

    fn squares(loads: &[usize]) -> usize {
        loads.iter().map(|load| load * load).sum()
    }

    /// Finds the least sum of squares of any assignment, by trying all.
    fn best(
        open: &[TopicPartitionId],
        subscribers: &Subscribers<'static>,
        loads: &mut [usize; 4],
    ) -> usize {
        let Some((first, rest)) = open.split_first() else {
            return squares(loads);
        };
        let able = subscribers.get(&first.topic_id);
        let able = able.into_iter().flatten();
        let tried = able.map(|id| {
            let at = NAMES.iter().position(|name| name == id).expect("a member");
            loads[at] += 1;
            let found = best(rest, subscribers, loads);
            loads[at] -= 1;
            found
        });
        let tried = tried.min();
        tried.unwrap_or_else(|| best(rest, subscribers, loads))
    }

    #[test]
    fn a_chain_of_moves_evens_out_what_single_moves_can_not() {
        // c can give to b only, and b then has no more than a has room for.
        let subscribers = Subscribers::from([
            (0, BTreeSet::from(["a", "b"])),
            (1, BTreeSet::from(["b", "c"])),
        ]);
        let all = places(&[2, 4]);
        let had = ["a", "b", "c", "c", "c", "c"];
        let before = || all.iter().copied().zip(had.map(Some));
        let single = targets(&subscribers, before(), 0);
        assert_eq!(loads(&subscribers, &single), [1, 2, 3]);
        let chained = targets(&subscribers, before(), 1);
        assert_eq!(loads(&subscribers, &chained), [2, 2, 2]);
    }

    #[test]
    fn without_steps_left_nothing_moves() {
        let subscribers = Subscribers::from([(0, BTreeSet::from(["a", "b"]))]);
        let all = places(&[4]);
        let mut owned: BTreeMap<TopicPartitionId, &str> =
            all.iter().map(|place| (*place, "a")).collect();
        let mut load = BTreeMap::from([("a", 4), ("b", 0)]);
        let fresh = BTreeSet::new();
        even_out(&subscribers, &mut owned, &mut load, &fresh, 1);
        assert_eq!(load["a"], 4);
        even_out(&subscribers, &mut owned, &mut load, &fresh, STEPS);
        assert_eq!(load["a"], 2);
    }

    proptest! {
        #[test]
        fn no_assignment_is_more_even_and_whoever_has_it_as_it_is_keeps_it(
            subscriptions in prop::collection::vec((0..4_usize, 0..3_u64), 0..10),
            sizes in prop::collection::vec(0..4_u32, 3),
            had in prop::collection::vec(prop::option::of(0..4_usize), 9),
        ) {
            let mut subscribers = Subscribers::new();
            for (member, topic) in subscriptions {
                subscribers.entry(topic).or_default().insert(NAMES[member]);
            }
            let all = places(&sizes);
            let had = had.iter().map(|had| had.map(|at| NAMES[at]));
            let found = targets(&subscribers, all.iter().copied().zip(had), 1);
            for (place, owner) in &found {
                prop_assert!(subscribers[&place.topic_id].contains(owner));
            }
            let least = best(&all, &subscribers, &mut [0; 4]);
            prop_assert_eq!(squares(&loads(&subscribers, &found)), least);
            let kept = all.iter().copied().map(|place| (place, found.get(&place).copied()));
            prop_assert_eq!(targets(&subscribers, kept, 1), found);
        }
    }
}
