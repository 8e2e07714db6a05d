//! Consumer groups of all kinds over a topic that grows twice, in a storm.

use std::time::Duration;

use ropewalk_simulation::load::settings::{Consuming, Growing};
use ropewalk_simulation::plan::Plan;
use ropewalk_simulation::run::run;

const ONE_BY_ONE: Consuming = Consuming {
    members: 3,
    by_pattern: false,
    from_end: false,
    fixed: false,
    session_ms: 1_000,
    rebalance_within_ms: 500,
    commit_every_ms: 300,
    by_hand: false,
    handlers: 0,
    in_flight: 200,
    restart_every_ms: 4_000,
    freeze_every_ms: 5_000,
};

#[test]
fn every_group_reads_all_of_a_topic_that_grows_under_it() {
    let mut plan = Plan::draw(2, Duration::from_secs(15));
    let handled = Consuming {
        by_pattern: true,
        fixed: true,
        by_hand: true,
        handlers: 8,
        ..ONE_BY_ONE
    };
    let from_end = Consuming {
        from_end: true,
        ..ONE_BY_ONE
    };
    plan.load.groups = vec![ONE_BY_ONE, handled, from_end];
    plan.load.retention_ms = -1;
    plan.load.retention_bytes = -1;
    let first = plan.load.partitions;
    plan.load.growths = [(4_000, first + 2), (8_000, first + 3)]
        .map(|(at_ms, partitions)| Growing { at_ms, partitions })
        .to_vec();
    let outcome = run(&plan);
    println!("{outcome:?}");
    assert_eq!(outcome.violations, []);
    let count = |what: &str| outcome.counts.get(what).copied().unwrap_or_default();
    // Failed attempts count, too; each old partition is fenced once per growth.
    assert!(count("topic-growths") >= 2 && count("fences") >= u64::from(2 * first + 2));
    assert!(count("group-members") > 2 * 3, "members come back");
    assert!(count("delivered") >= 2 * outcome.acknowledged);
}
