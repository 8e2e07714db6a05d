//! Internal topics that get more replicas as nodes join.

use std::collections::BTreeSet;

use ropewalk_proto::command::{RAISE_SINCE_VERSION, UNDERSTOOD_VERSION};
use ropewalk_proto::ids::GROUPS_TOPIC;
use ropewalk_proto::v1::RaiseReplicas;

use super::*;
use crate::meta::raise::due;

pub(super) fn raise(topic: &str, replicas: u32, nodes: &[u64]) -> Kind {
    Kind::RaiseReplicas(RaiseReplicas {
        topic: topic.into(),
        replicas,
        node_ids: nodes.to_vec(),
    })
}

/// Registers a node whose build has this command version.
fn joins(bench: &mut Bench, id: u8, command_version: u32) {
    let Kind::RegisterNode(mut node) = register(id, &format!("host{id}:1")) else {
        return;
    };
    node.command_version = command_version;
    bench.run(Kind::RegisterNode(node)).unwrap();
}

fn held_by(bench: &Bench, topic: &str, partition: u32) -> Vec<u64> {
    let places = bench.partition(topic, partition).replicas;
    places.iter().map(|place| place.node.0).collect()
}

/// Applies the commands that the controller would propose if these nodes are alive.
fn controller(bench: &mut Bench, living: &[u64]) -> usize {
    let view = bench.machine.to_view();
    let due = due(&view, |node| living.contains(&node.0));
    for raise in &due {
        bench.run(Kind::RaiseReplicas(raise.clone())).unwrap();
    }
    due.len()
}

#[test]
fn the_internal_topic_of_one_node_gets_three_replicas_as_nodes_come_and_others_keep_theirs() {
    let mut bench = Bench::cluster(1);
    joins(&mut bench, 1, UNDERSTOOD_VERSION);
    bench.create(GROUPS_TOPIC, 4, 1).unwrap();
    bench.create("orders", 2, 1).unwrap();
    assert_eq!(controller(&mut bench, &[1]), 0);
    joins(&mut bench, 2, UNDERSTOOD_VERSION);
    assert_eq!(controller(&mut bench, &[1]), 0, "not onto a silent node");
    assert_eq!(controller(&mut bench, &[1, 2]), 1);
    assert_eq!(held_by(&bench, GROUPS_TOPIC, 0), [1, 2]);
    joins(&mut bench, 3, UNDERSTOOD_VERSION);
    // In the same rack as the third.
    joins(&mut bench, 6, UNDERSTOOD_VERSION);
    assert_eq!(controller(&mut bench, &[1, 2, 3, 4]), 1);
    let mut third = BTreeSet::new();
    for partition in 0..4 {
        let held = held_by(&bench, GROUPS_TOPIC, partition);
        assert_eq!((held.len(), &held[..2]), (3, &[1, 2][..]));
        third.insert(held[2]);
        let one = bench.partition(GROUPS_TOPIC, partition);
        assert_eq!((one.founding.len(), one.retiring.len()), (1, 0));
    }
    assert_eq!(third, BTreeSet::from([3, 4]), "the new ones share them");
    assert_eq!(held_by(&bench, "orders", 0).len(), 1);
    assert_eq!(controller(&mut bench, &[1, 2, 3, 4]), 0);
    let mut replica = MetaMachine::default();
    let disk = bench.disk.clone().into_iter().collect();
    replica.load(bench.index, disk).unwrap();
    assert_eq!(replica.state, bench.machine.state);
    // The partition now moves with three replicas.
    let group = bench.partition(GROUPS_TOPIC, 0).group;
    assert_eq!(bench.run(moved(group, &[2, 3, 4])), Ok(None));
}

#[test]
fn replicas_are_not_raised_while_a_node_would_not_understand_it() {
    let mut bench = Bench::cluster(1);
    joins(&mut bench, 1, UNDERSTOOD_VERSION);
    bench.create(GROUPS_TOPIC, 1, 1).unwrap();
    joins(&mut bench, 2, RAISE_SINCE_VERSION - 1);
    assert_eq!(controller(&mut bench, &[1, 2]), 0);
    joins(&mut bench, 2, RAISE_SINCE_VERSION);
    assert_eq!(controller(&mut bench, &[1, 2]), 1);
}

#[test]
fn what_is_being_moved_is_raised_when_it_has_arrived() {
    let mut bench = Bench::cluster(1);
    joins(&mut bench, 1, UNDERSTOOD_VERSION);
    bench.create(GROUPS_TOPIC, 1, 1).unwrap();
    joins(&mut bench, 2, UNDERSTOOD_VERSION);
    let group = bench.partition(GROUPS_TOPIC, 0).group;
    bench.run(moved(group, &[2])).unwrap();
    assert_eq!(controller(&mut bench, &[1, 2]), 0, "not back to node 1 yet");
    let held = bench.partition(GROUPS_TOPIC, 0).replicas[0].replica.0;
    bench.run(settled(group, [held])).unwrap();
    assert_eq!(controller(&mut bench, &[1, 2]), 1);
    assert_eq!(held_by(&bench, GROUPS_TOPIC, 0), [2, 1]);
}

#[test]
fn where_nodes_are_missing_no_partition_is_raised() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 3, 2).unwrap();
    let before = bench.machine.state.clone();
    let short = bench.run(raise("t", 3, &[1, 2]));
    assert_eq!(short, Err(ErrorCode::NotEnoughNodes));
    let short = bench.run(raise("t", 9, &[1, 2, 3]));
    assert_eq!(short, Err(ErrorCode::NotEnoughNodes));
    let none = bench.run(raise("nowhere", 3, &[1, 2, 3]));
    assert_eq!(none, Err(ErrorCode::UnknownTopic));
    assert_eq!(bench.run(raise("t", 2, &[1, 2, 3])), Ok(None));
    assert_eq!(bench.run(raise("t", 1, &[1, 2, 3])), Ok(None));
    assert_eq!(bench.machine.state, before);
    assert_eq!(bench.run(raise("t", 3, &[1, 2, 3])), Ok(None));
    for partition in 0..3 {
        let held: BTreeSet<u64> = held_by(&bench, "t", partition).into_iter().collect();
        assert_eq!(held, BTreeSet::from([1, 2, 3]));
    }
}
