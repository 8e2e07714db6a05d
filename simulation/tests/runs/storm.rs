//! Whole runs, as `ropewalk-sim` makes them.

use std::time::Duration;

use ropewalk_simulation::plan::Plan;
use ropewalk_simulation::run::run;

#[test]
fn nothing_acknowledged_is_lost_in_a_storm() {
    for seed in 1..4 {
        let outcome = run(&Plan::draw(seed, Duration::from_secs(15)));
        assert_eq!(outcome.violations, [], "seed {seed}");
        assert!(outcome.acknowledged > 0, "seed {seed}: {outcome:?}");
    }
}
