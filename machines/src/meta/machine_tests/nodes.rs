//! Founding, registration, and nodes that leave.

use super::*;

#[test]
fn nothing_is_accepted_before_the_cluster_is_founded() {
    let mut bench = Bench::default();
    for kind in [
        register(1, "a:1"),
        create("t", 1, 1),
        delete("t"),
        producers(1),
        set_state(1, NodeState::Draining),
    ] {
        assert_eq!(bench.run(kind), Err(ErrorCode::NotServing));
    }
}

#[test]
fn a_cluster_is_founded_once_however_often_it_is_proposed() {
    let mut bench = Bench::cluster(3);
    let before = bench.machine.state.clone();
    assert_eq!(bench.run(found("c1", 3)), Ok(None));
    assert_eq!(bench.run(found("c2", 3)), Err(ErrorCode::InvalidRequest));
    assert_eq!(bench.machine.state, before);
    let first = first_replica_id("c1").0;
    let view = bench.machine.to_view();
    assert_eq!(view.nodes[&NodeId(3)].meta_replica.0, first + 3);
    assert_eq!(view.nodes[&NodeId(3)].address, "host3:1");
}

#[test]
fn a_plan_that_makes_no_sense_founds_nothing() {
    let Kind::FoundCluster(good) = found("c1", 2) else {
        unreachable!()
    };
    let mut twice = good.clone();
    twice.nodes[1].node_id = 1;
    let mut huge = good.clone();
    huge.nodes[1].node_id = u64::MAX;
    let mut short = good.clone();
    short.nodes[0].incarnation = Bytes::from_static(b"short");
    let mut nameless = good.clone();
    nameless.cluster_id.clear();
    let mut empty = good;
    empty.nodes.clear();
    for plan in [twice, huge, short, nameless, empty] {
        let mut bench = Bench::default();
        let refused = bench.run(Kind::FoundCluster(plan));
        assert_eq!(refused, Err(ErrorCode::InvalidRequest));
        assert_eq!(bench.machine.cluster_id(), "");
    }
}

#[test]
fn clusters_begin_their_replica_ids_far_apart() {
    let (one, other) = (first_replica_id("c1").0, first_replica_id("c2").0);
    assert!(one.abs_diff(other) >= 1 << 22);
    assert!(one > 0 && one < 1 << 52);
}

#[test]
fn a_node_that_comes_back_keeps_its_id_and_may_have_moved() {
    let mut bench = Bench::cluster(3);
    let (id, replica) = bench.register(2, "elsewhere:9").unwrap();
    assert_eq!((id, replica), (2, first_replica_id("c1").0 + 2));
    let view = bench.machine.to_view();
    let node = &view.nodes[&NodeId(2)];
    assert_eq!((&*node.address, &*node.rack), ("elsewhere:9", "rack2"));
    assert_eq!(view.nodes.len(), 3);
}

#[test]
fn a_registration_that_says_nothing_new_changes_nothing() {
    let mut bench = Bench::cluster(3);
    bench.register(2, "host2:1").unwrap();
    let changed = bench.machine.changed();
    bench.register(2, "host2:1").unwrap();
    assert_eq!(bench.machine.changed(), changed);
}

#[test]
fn new_nodes_are_numbered_in_order() {
    let mut bench = Bench::cluster(1);
    assert_eq!(bench.register(9, "host9:1").unwrap().0, 2);
    assert_eq!(bench.register(8, "host8:1").unwrap().0, 3);
}

#[test]
fn a_wiped_node_at_a_known_address_takes_the_lost_ones_place() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 2, 3).unwrap();
    let before = bench.partition("t", 0);
    let (id, replica) = bench.register(9, "host2:1").unwrap();
    assert_eq!(id, 4);
    assert_eq!(bench.state(2), NodeState::Removed);
    for number in 0..2 {
        let after = bench.partition("t", number);
        let nodes: Vec<u64> = after.replicas.iter().map(|place| place.node.0).collect();
        assert!(nodes.contains(&4) && !nodes.contains(&2));
        assert_eq!(after.retiring.len(), 1);
        assert_eq!(after.retiring[0].node, NodeId(2));
        let fresh = after.replicas.iter().find(|p| p.node.0 == 4).unwrap();
        assert!(fresh.replica.0 > replica);
        assert_eq!(after.founding, bench.partition("t", number).founding);
    }
    let position = before.replicas.iter().position(|p| p.node.0 == 2).unwrap();
    assert_eq!(bench.partition("t", 0).replicas[position].node.0, 4);
    // A removed node stays removed.
    assert_eq!(bench.register(2, "host2:1"), Err(ErrorCode::NodeRemoved));
    assert_eq!(
        bench.run(set_state(2, NodeState::Active)),
        Err(ErrorCode::UnknownNode)
    );
}

/// A registration in the form that the newest builds propose.
fn register_as(
    incarnation: u8,
    address: &str,
    in_place_of: Option<u64>,
    start: Option<(u64, u64)>,
) -> Kind {
    let Kind::RegisterNode(node) = register(incarnation, address) else {
        unreachable!()
    };
    Kind::RegisterNode(RegisterNode {
        in_place_of,
        start: start.map(|(count, nonce)| NodeStart { count, nonce }),
        ..node
    })
}

#[test]
fn a_new_node_takes_only_the_place_that_its_proposer_found_to_be_a_dead_ones() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 2, 3).unwrap();
    let before = bench.machine.state.clone();
    for other in [0, 1, 9] {
        let refused = bench.run(register_as(9, "host2:1", Some(other), None));
        assert_eq!(refused, Err(ErrorCode::AddressInUse));
    }
    assert_eq!(bench.machine.state, before);
    bench.run(register_as(9, "host2:1", Some(2), None)).unwrap();
    assert_eq!(bench.state(2), NodeState::Removed);
    // At a free address the new node replaces no other.
    bench
        .run(register_as(8, "elsewhere:1", Some(0), None))
        .unwrap();
    assert_eq!(bench.machine.to_view().nodes.len(), 5);
}

#[test]
fn of_two_processes_of_one_node_the_older_start_is_refused_and_so_is_the_second_of_a_count() {
    let mut bench = Bench::cluster(1);
    let mut tell = |start| bench.run(register_as(1, "a:1", None, start)).map(|_| ());
    assert_eq!(tell(None), Ok(()));
    assert_eq!(tell(Some((5, 50))), Ok(()));
    assert_eq!(tell(Some((5, 50))), Ok(()), "the same again");
    assert_eq!(tell(Some((4, 40))), Err(ErrorCode::StartedTwice));
    assert_eq!(tell(Some((5, 51))), Err(ErrorCode::StartedTwice));
    // An older build's registration has no start, and does not reset the known one.
    assert_eq!(tell(None), Ok(()));
    assert_eq!(tell(Some((4, 40))), Err(ErrorCode::StartedTwice));
    assert_eq!(tell(Some((6, 60))), Ok(()));
    assert_eq!(tell(Some((5, 50))), Err(ErrorCode::StartedTwice));
}

#[test]
fn a_registration_without_incarnation_or_address_is_refused() {
    let mut bench = Bench::cluster(1);
    assert_eq!(bench.register(3, ""), Err(ErrorCode::InvalidRequest));
    let Kind::RegisterNode(mut short) = register(3, "a:1") else {
        unreachable!()
    };
    short.incarnation = Bytes::from_static(b"abc");
    assert_eq!(
        bench.run(Kind::RegisterNode(short)),
        Err(ErrorCode::InvalidRequest)
    );
}

#[test]
fn an_external_address_stays_until_another_or_none_is_told() {
    let mut bench = Bench::cluster(1);
    let mut tell = |external: Option<&str>| {
        let Kind::RegisterNode(mut node) = register(1, "a:1") else {
            unreachable!()
        };
        node.external = external.map(str::to_owned);
        bench.run(Kind::RegisterNode(node)).unwrap();
        bench.machine.to_view().nodes[&NodeId(1)].external.clone()
    };
    assert_eq!(tell(None), "");
    assert_eq!(tell(Some("outside:1")), "outside:1");
    // The registration of an older build, or of one that cannot send it yet, leaves it unchanged.
    assert_eq!(tell(None), "outside:1");
    assert_eq!(tell(Some("outside:2")), "outside:2");
    assert_eq!(tell(Some("")), "");
}

#[test]
fn decommissioning_is_refused_where_too_few_nodes_would_stay() {
    let mut bench = Bench::cluster(4);
    bench.create("t", 1, 3).unwrap();
    bench.run(set_state(1, NodeState::Decommissioning)).unwrap();
    assert_eq!(
        bench.run(set_state(2, NodeState::Decommissioning)),
        Err(ErrorCode::Unsafe)
    );
    bench.run(set_state(1, NodeState::Active)).unwrap();
    bench.run(set_state(2, NodeState::Decommissioning)).unwrap();
    let mut alone = Bench::cluster(1);
    assert_eq!(
        alone.run(set_state(1, NodeState::Decommissioning)),
        Err(ErrorCode::Unsafe)
    );
}

#[test]
fn a_node_is_removed_only_when_it_leaves_and_holds_nothing() {
    let mut bench = Bench::cluster(2);
    bench.create("t", 1, 1).unwrap();
    let partition = bench.partition("t", 0);
    let holder = partition.replicas[0];
    let other = 3 - holder.node.0;
    let remove = |node: u64| set_state(node, NodeState::Removed);
    assert_eq!(bench.run(remove(other)), Err(ErrorCode::Unsafe));
    bench
        .run(set_state(holder.node.0, NodeState::Decommissioning))
        .unwrap();
    assert_eq!(bench.run(remove(holder.node.0)), Err(ErrorCode::Unsafe));
    bench.run(moved(partition.group, &[other])).unwrap();
    assert_eq!(bench.run(remove(holder.node.0)), Err(ErrorCode::Unsafe));
    let now = bench.partition("t", 0).replicas[0].replica.0;
    bench.run(settled(partition.group, [now])).unwrap();
    assert_eq!(bench.run(remove(holder.node.0)), Ok(None));
    assert_eq!(bench.state(holder.node.0), NodeState::Removed);
}

#[test]
fn unknown_nodes_and_states_are_refused() {
    let mut bench = Bench::cluster(2);
    assert_eq!(
        bench.run(set_state(9, NodeState::Draining)),
        Err(ErrorCode::UnknownNode)
    );
    assert_eq!(
        bench.run(Kind::SetNodeState(SetNodeState {
            node_id: 1,
            state: 99
        })),
        Err(ErrorCode::InvalidRequest)
    );
}
