//! The target assignment of partitions to members: as even as subscriptions allow, with as few moves as that
//! allows. The result is the same on every replica: order breaks ties.

use std::collections::{BTreeMap, BTreeSet};

use super::TopicPartitionId;
use super::chains::{self, STEPS};

/// Subscribed members of each topic, by topic id.
pub(super) type Subscribers<'a> = BTreeMap<u64, BTreeSet<&'a str>>;

/// Returns the target owner of each partition. `before` is the former target, or else the owner. It stays the
/// target unless it is gone or has more than its share. Partitions without subscribers are left out. Before
/// rules 1, only single moves even out the assignment.
pub(super) fn targets<'a>(
    subscribers: &Subscribers<'a>,
    places: impl Iterator<Item = (TopicPartitionId, Option<&'a str>)>,
    rules: u32,
) -> BTreeMap<TopicPartitionId, &'a str> {
    let mut load: BTreeMap<&str, usize> = BTreeMap::new();
    for member in subscribers.values().flatten() {
        load.entry(member).or_insert(0);
    }
    let mut targets = BTreeMap::new();
    let mut free = Vec::new();
    for (place, before) in places {
        let Some(able) = subscribers.get(&place.topic_id) else {
            continue;
        };
        match before.filter(|before| able.contains(before)) {
            Some(before) => {
                *load.entry(before).or_insert(0) += 1;
                targets.insert(place, before);
            }
            None => free.push((place, able)),
        }
    }
    let fresh: BTreeSet<TopicPartitionId> = free.iter().map(|(place, _)| *place).collect();
    for (place, able) in free {
        if let Some(member) = least(able, &load) {
            *load.entry(member).or_insert(0) += 1;
            targets.insert(place, member);
        }
    }
    even_out(subscribers, &mut targets, &mut load);
    if rules > 0 {
        chains::even_out(subscribers, &mut targets, &mut load, &fresh, STEPS);
    }
    targets
}

/// Moves partitions from the members with most to those with fewest, each only if that evens out the
/// assignment. It ends because each move reduces the sum of the squares of all loads.
fn even_out<'a>(
    subscribers: &Subscribers<'a>,
    targets: &mut BTreeMap<TopicPartitionId, &'a str>,
    load: &mut BTreeMap<&'a str, usize>,
) {
    let mut moved = true;
    while moved {
        moved = false;
        for (place, owner) in targets.iter_mut() {
            let able = subscribers.get(&place.topic_id);
            let Some(heir) = able.and_then(|able| least(able, load)) else {
                continue;
            };
            let count = |member: &str| load.get(member).copied().unwrap_or(0);
            if count(owner) > count(heir) + 1 {
                *load.entry(owner).or_insert(1) -= 1;
                *load.entry(heir).or_insert(0) += 1;
                *owner = heir;
                moved = true;
            }
        }
    }
}

/// Returns the member with the fewest partitions; the first, if there are several.
fn least<'a>(able: &BTreeSet<&'a str>, load: &BTreeMap<&'a str, usize>) -> Option<&'a str> {
    able.iter()
        .copied()
        .min_by_key(|member| load.get(member).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

    fn places(topic_id: u64, partitions: u32) -> impl Iterator<Item = TopicPartitionId> {
        (0..partitions).map(move |partition| TopicPartitionId {
            topic_id,
            partition,
        })
    }

    fn all_to(topic_id: u64, members: &[&'static str]) -> Subscribers<'static> {
        BTreeMap::from([(topic_id, members.iter().copied().collect())])
    }

    fn loads(targets: &BTreeMap<TopicPartitionId, &'static str>) -> BTreeMap<&'static str, usize> {
        targets.values().fold(BTreeMap::new(), |mut loads, member| {
            *loads.entry(*member).or_insert(0) += 1;
            loads
        })
    }

    #[test]
    fn a_member_that_comes_takes_its_share_and_nothing_else_moves() {
        let fresh = |place| (place, None);
        let before = targets(&all_to(1, &["a", "b"]), places(1, 12).map(fresh), 1);
        assert_eq!(loads(&before), BTreeMap::from([("a", 6), ("b", 6)]));
        let kept = before.iter().map(|(place, owner)| (*place, Some(*owner)));
        let after = targets(&all_to(1, &["a", "b", "c"]), kept, 1);
        assert_eq!(loads(&after).values().max(), Some(&4));
        let moved = before
            .iter()
            .filter(|(place, owner)| after[place] != **owner);
        assert!(moved.clone().all(|(place, _)| after[place] == "c"));
        assert_eq!(moved.count(), 4);
    }

    #[test]
    fn a_member_that_goes_leaves_only_its_own_to_others() {
        let before = targets(
            &all_to(1, &["a", "b", "c"]),
            places(1, 12).map(|p| (p, None)),
            1,
        );
        let kept = before.iter().map(|(place, owner)| (*place, Some(*owner)));
        let after = targets(&all_to(1, &["a", "c"]), kept, 1);
        assert_eq!(loads(&after), BTreeMap::from([("a", 6), ("c", 6)]));
        for (place, owner) in before {
            assert!(owner == "b" || after[&place] == owner);
        }
    }

    #[test]
    fn who_reads_more_topics_gets_less_of_the_common_one() {
        let subscribers =
            BTreeMap::from([(1, BTreeSet::from(["a", "b"])), (2, BTreeSet::from(["b"]))]);
        let all = places(1, 4).chain(places(2, 4)).map(|place| (place, None));
        let targets = targets(&subscribers, all, 1);
        assert_eq!(loads(&targets), BTreeMap::from([("a", 4), ("b", 4)]));
    }

    proptest! {
        #[test]
        fn every_partition_goes_to_a_subscriber_and_no_move_makes_it_more_even(
            subscriptions in prop::collection::vec((0..6_usize, 0..4_u64), 0..20),
            had in prop::collection::vec(prop::option::of(0..6_usize), 4 * 9),
            rules in 0..2_u32,
        ) {
            let mut subscribers = Subscribers::new();
            for (member, topic) in subscriptions {
                subscribers.entry(topic).or_default().insert(NAMES[member]);
            }
            let all: Vec<TopicPartitionId> = (0..4).flat_map(|topic| places(topic, 9)).collect();
            let before = all.iter().copied().zip(had).map(|(place, had)| (place, had.map(|at| NAMES[at])));
            let targets = targets(&subscribers, before, rules);
            let loads = loads(&targets);
            let load = |member: &str| loads.get(member).copied().unwrap_or(0);
            for place in all {
                let able = subscribers.get(&place.topic_id);
                prop_assert_eq!(targets.contains_key(&place), able.is_some());
                let Some(able) = able else { continue };
                let owner = targets[&place];
                prop_assert!(able.contains(owner));
                prop_assert!(able.iter().all(|other| load(other) + 1 >= load(owner)));
            }
        }
    }
}
