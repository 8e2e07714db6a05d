//! A compacted topic, in a storm.

use std::time::Duration;

use ropewalk_simulation::fault::What;
use ropewalk_simulation::plan::Plan;
use ropewalk_simulation::run::run;

#[test]
fn a_compacted_topic_keeps_the_last_value_of_each_key_on_every_replica() {
    // Not every storm leaves a leader undisturbed for long enough to compact twice.
    let compactions: u64 = (5..8).map(compactions).sum();
    assert!(compactions >= 2);
}

/// Number of compactions of one run, which must pass.
fn compactions(seed: u64) -> u64 {
    // Long enough for the leader to look for compactable data twice.
    let mut plan = Plan::draw(seed, Duration::from_secs(40));
    plan.load.table_every_ms = 20;
    // Little other load, since this test is about compaction.
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
