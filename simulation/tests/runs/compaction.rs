//! A topic that is compacted, in a storm.

use std::time::Duration;

use ropewalk_simulation::fault::What;
use ropewalk_simulation::plan::Plan;
use ropewalk_simulation::run::run;

#[test]
fn a_compacted_topic_keeps_the_last_value_of_each_key_on_every_replica() {
    // Not each storm leaves a leader in peace for as long as it takes to compact twice.
    let compactions: u64 = (5..8).map(compactions).sum();
    assert!(compactions >= 2);
}

/// Compactions of one run, which must hold.
fn compactions(seed: u64) -> u64 {
    // Long enough for two looks of the leader at what there is to compact.
    let mut plan = Plan::draw(seed, Duration::from_secs(40));
    plan.load.table_every_ms = 20;
    // Little else, for it is not what this is about.
    plan.load.groups = Vec::new();
    plan.load.producers.truncate(1);
    for producing in &mut plan.load.producers {
        (producing.burst, producing.pause_ms) = (0, 500);
    }
    plan.faults
        .retain(|fault| !matches!(fault.what, What::Identities(_)));
    let outcome = run(&plan);
    println!("{outcome:?}");
    assert_eq!(outcome.violations, []);
    outcome
        .counts
        .get("compactions")
        .copied()
        .unwrap_or_default()
}
