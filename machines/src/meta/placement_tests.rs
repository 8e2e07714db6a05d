//! The properties of placement, for many shapes of cluster.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId, TopicId};
use ropewalk_proto::v1::NodeState;

use super::balance::rebalance;
use super::placement::{Key, Ring, Slot, place};
use super::settings;
use super::view::{MetadataImage, NodeImage, PartitionImage, ReplicaPlacement, TopicImage};

fn slots(nodes: u64, racks: u64) -> Vec<Slot> {
    let rack = |node: u64| format!("r{}", node % racks);
    (1..=nodes)
        .map(|node| Slot::new(NodeId(node), &rack(node)))
        .collect()
}

fn spread(counts: &BTreeMap<NodeId, usize>, nodes: u64) -> usize {
    let count = |node| counts.get(&NodeId(node)).copied().unwrap_or_default();
    let most = (1..=nodes).map(count).max().unwrap_or_default();
    most - (1..=nodes).map(count).min().unwrap_or_default()
}

fn counts<'a>(nodes: impl Iterator<Item = &'a NodeId>) -> BTreeMap<NodeId, usize> {
    let mut counts = BTreeMap::new();
    for node in nodes {
        *counts.entry(*node).or_default() += 1;
    }
    counts
}

fn view(places: &[Vec<NodeId>], nodes: u64, racks: u64) -> MetadataImage {
    let node = |id: u64| NodeImage {
        id: NodeId(id),
        address: format!("h{id}:1"),
        http: String::new(),
        external: String::new(),
        rack: format!("r{}", id % racks),
        version: String::new(),
        state: NodeState::Active,
        meta_replica: ReplicaId(id),
    };
    let partition = |(number, nodes): (usize, &Vec<NodeId>)| PartitionImage {
        partition: number as u32,
        group: GroupId(number as u64 + 1),
        replicas: nodes
            .iter()
            .map(|node| ReplicaPlacement {
                replica: ReplicaId(number as u64 * 10 + node.0),
                node: *node,
            })
            .collect(),
        retiring: Vec::new(),
        damaged: Vec::new(),
        founding: Vec::new(),
    };
    let topic = TopicImage {
        name: "t".into(),
        id: TopicId(1),
        settings: settings::defaults(),
        ring_version: 1,
        ring_partitions: 1,
        growths: Vec::new(),
        partitions: places.iter().enumerate().map(partition).collect(),
    };
    MetadataImage {
        nodes: (1..=nodes).map(|id| (NodeId(id), node(id))).collect(),
        topics: BTreeMap::from([("t".into(), topic)]),
        ..MetadataImage::default()
    }
}

/// Applies moves at once.
fn carry_out(view: &mut MetadataImage, moves: &[(GroupId, Vec<NodeId>)]) {
    let topics = view.topics.values_mut();
    for partition in topics.flat_map(|topic| &mut topic.partitions) {
        let wish = moves.iter().find(|(group, _)| *group == partition.group);
        if let Some((_, nodes)) = wish {
            let place = |node: &NodeId| ReplicaPlacement {
                replica: ReplicaId(node.0),
                node: *node,
            };
            partition.replicas = nodes.iter().map(place).collect();
        }
    }
}

/// Computes and applies moves until there are none. Returns the number of replicas that moved.
fn settle(view: &mut MetadataImage, lost: &BTreeSet<NodeId>) -> usize {
    let mut moved = 0;
    for _ in 0..20 {
        let before = places_of(view);
        let moves = rebalance(view, lost);
        if moves.is_empty() {
            return moved;
        }
        carry_out(view, &moves);
        for (old, new) in before.iter().zip(places_of(view)) {
            moved += new.iter().filter(|node| !old.contains(node)).count();
        }
    }
    panic!("the moves never end");
}

fn places_of(view: &MetadataImage) -> Vec<Vec<NodeId>> {
    let nodes = |p: &PartitionImage| p.replicas.iter().map(|place| place.node).collect();
    view.partitions().map(nodes).collect()
}

#[test]
fn twelve_partitions_on_three_nodes_are_led_by_four_each() {
    for topic in 0..50 {
        let places = place(topic, 12, 3, &slots(3, 1));
        let led = counts(places.iter().filter_map(|nodes| nodes.first()));
        assert_eq!(led.values().copied().collect::<Vec<_>>(), vec![4, 4, 4]);
    }
}

#[test]
fn many_small_topics_share_the_nodes_evenly() {
    let mut slots = slots(5, 1);
    for topic in 0..40 {
        for nodes in place(topic, 1, 3, &slots) {
            for (position, node) in nodes.iter().enumerate() {
                let slot = slots.iter_mut().find(|slot| slot.node == *node).unwrap();
                slot.replicas += 1;
                slot.leaders += usize::from(position == 0);
            }
        }
    }
    for slot in slots {
        assert_eq!(slot.replicas, 24);
        assert!((6..=10).contains(&slot.leaders), "{slot:?}");
    }
}

#[test]
fn the_ring_is_the_same_for_ever() {
    let ring = Ring::new((1..=5).map(NodeId));
    let first = |topic, partition| {
        let turns = ring.turns(Key { topic, partition });
        let mut nodes: Vec<_> = turns
            .into_iter()
            .map(|(node, turn)| (turn, node.0))
            .collect();
        nodes.sort_unstable();
        nodes.into_iter().map(|(_, node)| node).collect::<Vec<_>>()
    };
    let met = [first(1, 0), first(1, 1), first(7, 3)];
    assert_eq!(met, [[1, 5, 3, 4, 2], [1, 3, 5, 2, 4], [3, 5, 1, 4, 2]]);
}

#[test]
fn what_a_lost_node_held_is_rebuilt_on_the_others() {
    let places = place(1, 12, 3, &slots(4, 1));
    let mut view = view(&places, 4, 1);
    let held = places.iter().flatten().filter(|node| node.0 == 2).count();
    let lost = BTreeSet::from([NodeId(2)]);
    assert!(settle(&mut view, &lost) >= held);
    assert!(places_of(&view).iter().flatten().all(|node| node.0 != 2));
}

#[test]
fn with_too_few_nodes_left_a_lost_nodes_replicas_stay_where_they_are() {
    let places = place(1, 12, 3, &slots(3, 1));
    let view = view(&places, 3, 1);
    assert_eq!(rebalance(&view, &BTreeSet::from([NodeId(2)])), Vec::new());
}

#[test]
fn a_decommissioned_node_is_emptied_and_a_draining_one_keeps_what_it_holds() {
    let places = place(1, 12, 3, &slots(5, 1));
    let mut view = view(&places, 5, 1);
    let held = places.iter().flatten().filter(|node| node.0 == 3).count();
    view.nodes.get_mut(&NodeId(2)).unwrap().state = NodeState::Decommissioning;
    view.nodes.get_mut(&NodeId(3)).unwrap().state = NodeState::Draining;
    settle(&mut view, &BTreeSet::new());
    let after = counts(places_of(&view).iter().flatten());
    assert_eq!(after.get(&NodeId(2)), None);
    assert_eq!(after.get(&NodeId(3)), Some(&held));
}

#[test]
fn a_partition_that_is_on_its_way_already_is_not_moved_again_for_balance() {
    let places = place(1, 12, 3, &slots(3, 1));
    let mut view = view(&places, 4, 1);
    let topic = view.topics.get_mut("t").unwrap();
    for partition in &mut topic.partitions {
        partition.retiring.push(ReplicaPlacement {
            replica: ReplicaId(999),
            node: NodeId(1),
        });
    }
    assert_eq!(rebalance(&view, &BTreeSet::new()), Vec::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn replicas_and_leaders_are_even_and_on_different_nodes(
        topic in 0..1_000u64, partitions in 1..60u32, replicas in 1..6u32, extra in 0..6u64,
    ) {
        let nodes = u64::from(replicas) + extra;
        let places = place(topic, partitions, replicas, &slots(nodes, 1));
        prop_assert_eq!(places.len(), partitions as usize);
        for nodes in &places {
            let distinct: BTreeSet<_> = nodes.iter().collect();
            prop_assert_eq!(distinct.len(), replicas as usize);
        }
        prop_assert!(spread(&counts(places.iter().flatten()), nodes) <= 1);
        prop_assert!(spread(&counts(places.iter().filter_map(|p| p.first())), nodes) <= 1);
        prop_assert_eq!(&places, &place(topic, partitions, replicas, &slots(nodes, 1)));
        // No move is left.
        prop_assert_eq!(rebalance(&view(&places, nodes, 1), &BTreeSet::new()), vec![]);
    }

    #[test]
    fn replicas_are_spread_over_as_many_racks_as_there_are(
        topic in 0..1_000u64, partitions in 1..40u32, replicas in 1..6u32, racks in 1..5u64,
        nodes in 6..12u64,
    ) {
        for nodes in place(topic, partitions, replicas, &slots(nodes, racks)) {
            let used: BTreeSet<u64> = nodes.iter().map(|node| node.0 % racks).collect();
            prop_assert_eq!(used.len() as u64, u64::from(replicas).min(racks));
        }
    }

    #[test]
    fn a_node_that_joins_gets_its_share_and_nothing_else_moves(
        topic in 0..1_000u64, partitions in 1..60u32, replicas in 1..4u32, extra in 0..5u64,
    ) {
        let nodes = u64::from(replicas) + extra;
        let places = place(topic, partitions, replicas, &slots(nodes, 1));
        let mut view = view(&places, nodes + 1, 1);
        let moved = settle(&mut view, &BTreeSet::new());
        let after = places_of(&view);
        let held = counts(after.iter().flatten());
        prop_assert!(spread(&held, nodes + 1) <= 1);
        let share = held.get(&NodeId(nodes + 1)).copied().unwrap_or_default();
        prop_assert_eq!(moved, share);
        prop_assert!(share <= (partitions * replicas) as usize / (nodes as usize + 1));
        let led = counts(after.iter().filter_map(|p| p.first()));
        prop_assert!(spread(&led, nodes + 1) <= 1, "{led:?}");
    }

    #[test]
    fn after_any_loss_every_partition_is_whole_on_living_nodes(
        topic in 0..1_000u64, partitions in 1..40u32, replicas in 1..4u32, lost in 1..3u64,
        racks in 1..4u64,
    ) {
        let nodes = u64::from(replicas) + lost + 1;
        let places = place(topic, partitions, replicas, &slots(nodes, racks));
        let mut view = view(&places, nodes, racks);
        let lost: BTreeSet<NodeId> = (1..=lost).map(NodeId).collect();
        settle(&mut view, &lost);
        for nodes in places_of(&view) {
            let distinct: BTreeSet<_> = nodes.iter().filter(|n| !lost.contains(n)).collect();
            prop_assert_eq!(distinct.len(), replicas as usize);
        }
    }
}
