//! Every kind of fault, alone, over a short run: it takes effect, and no invariant is violated.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use ropewalk_simulation::fault::What;
use ropewalk_simulation::plan::{Load, Plan, draw_kind};
use ropewalk_simulation::run::{Outcome, run};

const STORM: Duration = Duration::from_secs(15);
const EVERY_MS: u64 = 3_000;

fn little_to_do(load: &mut Load) {
    load.partitions = 1;
    load.producers.truncate(1);
    for producer in &mut load.producers {
        producer.pause_ms = 50;
    }
    load.publish_every_ms = 0;
    load.garden_every_ms = 0;
    load.table_every_ms = 0;
    load.wanderers = 0;
    load.groups.clear();
    load.growths.clear();
}

/// A run in which only this kind of fault occurs.
fn alone(kind: &str, seed: u64, nodes: usize) -> Outcome {
    let mut plan = Plan::draw(seed, STORM);
    plan.nodes = nodes;
    little_to_do(&mut plan.load);
    plan.faults.clear();
    let mut random = SmallRng::seed_from_u64(seed);
    let often = (nodes, EVERY_MS, plan.storm_ms);
    draw_kind(&mut random, kind, often, &mut plan.faults);
    run(&plan)
}

fn holds_alone(kind: &str, nodes: usize) {
    let outcome = alone(kind, 1, nodes);
    println!("{outcome:?}");
    assert_eq!(outcome.violations, [], "{kind}");
    assert!(outcome.acknowledged > 0, "{kind}: {outcome:?}");
    let fell = outcome.faults.get(kind).copied().unwrap_or(0);
    assert!(fell > 0, "{kind} never took effect: {outcome:?}");
}

/// A test for each kind, so that they run in parallel and each fails under its own name.
macro_rules! alone {
    ($($name:ident: $kind:literal on $nodes:literal;)*) => {
        $(#[test]
        fn $name() {
            holds_alone($kind, $nodes);
        })*

        #[test]
        fn every_kind_has_its_run() {
            let tested = [$($kind),*];
            let untested: Vec<_> = What::kinds().filter(|kind| !tested.contains(kind)).collect();
            assert_eq!(untested, NOT_ALONE);
        }
    };
}

/// A snapshot is installed only where a log was purged beyond the last entry of some replica, which takes
/// more than this kind alone. Process tests and the cluster's tests cover faults of identities.
const NOT_ALONE: [&str; 5] = [
    "crash-in-install",
    "taken-address",
    "copied-directory",
    "moved-addresses",
    "swapped-addresses",
];

alone! {
    a_partition: "partition" on 3;
    a_partition_that_one_node_bridges: "bridging-partition" on 3;
    a_partition_one_way: "one-way-partition" on 3;
    a_node_without_clients: "no-clients" on 3;
    lost_messages: "message-loss" on 3;
    late_messages: "delay" on 3;
    held_messages: "held-messages" on 3;
    reset_connections: "connection-reset" on 3;
    a_slow_link: "slow-link" on 3;
    a_crash_of_one: "crash-of-one" on 3;
    a_crash_of_a_majority: "crash-of-majority" on 3;
    a_crash_of_all: "crash-of-all" on 3;
    a_power_loss_of_one: "power-loss-of-one" on 3;
    a_power_loss_of_a_majority: "power-loss-of-majority" on 3;
    a_power_loss_of_all: "power-loss-of-all" on 3;
    a_crash_in_the_middle_of_an_append: "crash-in-append" on 3;
    a_crash_between_vote_and_log: "crash-after-vote" on 3;
    a_crash_during_recovery: "crash-in-recovery" on 3;
    a_graceful_restart: "graceful-restart" on 3;
    a_rolling_restart: "rolling-restart" on 3;
    a_restart_with_a_smaller_configuration: "smaller-configuration" on 3;
    a_pause: "pause" on 3;
    an_io_error: "io-error" on 3;
    a_full_disk: "full-disk" on 3;
    a_disk_with_low_space: "low-space" on 3;
    damage: "damage" on 3;
    a_slow_disk: "slow-disk" on 3;
    a_wiped_disk: "wipe" on 3;
    a_clock_set_forward: "clock-forward" on 3;
    a_clock_set_back: "clock-back" on 3;
    a_drifting_clock: "clock-drift" on 3;
    a_leader_transfer: "leader-transfer" on 3;
    a_partition_move: "partition-move" on 4;
    a_drain: "drain" on 3;
    a_decommission: "decommission" on 4;
    a_join: "join" on 3;
}
