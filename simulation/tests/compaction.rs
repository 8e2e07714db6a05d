//! A topic that is compacted, in a storm.

use std::time::Duration;

use ropewalk_simulation::plan::Plan;
use ropewalk_simulation::run::run;

#[test]
fn a_compacted_topic_keeps_the_last_value_of_each_key_on_every_replica() {
    // Long enough for two looks of the leader at what there is to compact.
    let mut plan = Plan::draw(5, Duration::from_secs(25));
    plan.load.table_every_ms = 20;
    // Little else, for it is not what this is about.
    plan.load.groups = Vec::new();
    plan.load.producers.truncate(1);
    for producing in &mut plan.load.producers {
        (producing.burst, producing.pause_ms) = (0, 500);
    }
    let outcome = run(&plan);
    println!("{outcome:?}");
    assert_eq!(outcome.violations, []);
    let count = |what: &str| outcome.counts.get(what).copied().unwrap_or_default();
    assert!(count("compactions") >= 2);
}
