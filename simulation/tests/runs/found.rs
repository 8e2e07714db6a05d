//! Failures that long runs found, each as a short plan.

use std::time::Duration;

use ropewalk_simulation::fault::{Disks, Fault, Network, Operations, Processes, Reach, What};
use ropewalk_simulation::plan::Plan;
use ropewalk_simulation::run::run;

/// Runs a cluster of this many nodes with one producer and these faults, each given by start, duration and
/// kind. All invariants must hold.
fn holds(nodes: usize, storm: Duration, faults: Vec<(u64, u64, What)>) {
    let mut plan = Plan::draw(1, storm);
    plan.nodes = nodes;
    plan.load.partitions = 4;
    plan.load.producers.truncate(1);
    for producer in &mut plan.load.producers {
        producer.pause_ms = 50;
    }
    plan.load.publish_every_ms = 0;
    plan.load.garden_every_ms = 0;
    plan.load.table_every_ms = 0;
    plan.load.wanderers = 0;
    plan.load.groups.clear();
    plan.load.growths.clear();
    let fault = |(at_ms, for_ms, what)| Fault {
        at_ms,
        for_ms,
        what,
    };
    plan.faults = faults.into_iter().map(fault).collect();
    plan_holds(&plan);
}

fn plan_holds(plan: &Plan) {
    let outcome = run(plan);
    println!("{outcome:?}");
    assert_eq!(outcome.violations, []);
    assert!(outcome.acknowledged > 0, "{outcome:?}");
}

/// Half of the cluster joins while a node is cut off. Later clients can ask only that node.
#[test]
fn that_a_node_does_not_know_who_joined_meanwhile_costs_nobody_its_data() {
    let cut_off = What::Network(Network::Partition { nodes: vec![2] });
    let join = |at_ms| (at_ms, 1_000, What::Operations(Operations::Join));
    let mut faults = vec![
        (2_500, 27_000, cut_off),
        join(3_000),
        join(3_500),
        join(4_000),
    ];
    for node in [0, 1, 3, 4, 5] {
        let unheard = What::Network(Network::NoClients { node });
        faults.push((20_000, 9_000, unheard));
    }
    holds(3, Duration::from_secs(30), faults);
}

/// A node that lost its disk waits for the others. When the cluster assigns it a place, its new disk is full.
#[test]
fn a_disk_that_is_full_when_its_node_gets_a_place_keeps_it_out_only_until_there_is_room() {
    let wiped = What::Disks(Disks::Wipe { node: 2 });
    let away = What::Processes(Processes::Crash {
        reach: Reach::Majority,
        nodes: vec![0, 1],
    });
    let full = What::Disks(Disks::Full { node: 2 });
    let faults = vec![
        (6_000, 1_000, wiped),
        (6_500, 8_000, away),
        (10_000, 8_000, full),
    ];
    holds(3, Duration::from_secs(22), faults);
}

/// A node does not learn of a move, then becomes leader of the moved partition, and knows only the old
/// placement.
#[test]
fn a_leader_that_did_not_hear_of_a_move_does_not_undo_it() {
    let unheard = What::Network(Network::OneWay { from: 0, to: 1 });
    let leaves = What::Operations(Operations::Decommission { node: 3 });
    let away = What::Processes(Processes::Crash {
        reach: Reach::One,
        nodes: vec![3],
    });
    let faults = vec![
        (2_500, 5_444, unheard),
        (2_900, 6_079, leaves),
        (5_792, 1_553, away),
    ];
    holds(4, Duration::from_secs(15), faults);
}

/// A node is removed while it is cut off, and clients keep asking it. This plan was found by hand.
#[test]
fn a_node_that_was_removed_unheard_keeps_no_client_from_the_others() {
    let plan = include_str!("plans/removed-unheard.json");
    plan_holds(&serde_json::from_str(plan).expect("a plan"));
}
