//! Shrinking of a failing plan: fewer faults, a shorter storm, less load, fewer nodes, as long as the same
//! check still fails.

use crate::load::settings::Producing;
use crate::plan::{Load, Plan};

/// Minimum duration of a storm, in ms: a cluster needs a moment to form.
const SHORTEST_STORM_MS: u64 = 5_000;
/// Minimum number of nodes: fewer cannot have three replicas.
const FEWEST_NODES: usize = 3;
/// Maximum pause between two sends of a producer, in ms; beyond it there is no load.
const SLOWEST_MS: u64 = 500;
/// Size of a producer's values after shrinking.
const PLAIN_BYTES: usize = 16;

/// The smallest plan found that still fails. `fails` is called at most `attempts` times.
pub fn shrink(plan: &Plan, attempts: usize, fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut asking = Asking {
        left: attempts,
        fails,
    };
    let mut smallest = plan.clone();
    loop {
        let mut went_on = leave_out_faults(&mut smallest, &mut asking);
        for smaller in SMALLER {
            while let Some(next) = smaller(&smallest).filter(|next| asking.fails(next)) {
                smallest = next;
                went_on = true;
            }
        }
        if !went_on {
            return smallest;
        }
    }
}

/// One step that makes a plan smaller; none if the step does not apply.
type Smaller = fn(&Plan) -> Option<Plan>;

const SMALLER: [Smaller; 15] = [
    half_the_storm,
    no_storm_after_the_last_fault,
    one_producer_less,
    one_partition_less,
    no_garden,
    no_publisher,
    no_table,
    one_wanderer_less,
    no_sieve,
    one_group_less,
    one_member_less,
    one_growth_less,
    half_as_often,
    plain_producers,
    one_node_less,
];

struct Asking<F> {
    left: usize,
    fails: F,
}

impl<F: FnMut(&Plan) -> bool> Asking<F> {
    fn fails(&mut self, plan: &Plan) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        (self.fails)(plan)
    }
}

/// Delta debugging: leaves out halves, then quarters, down to single faults. True if it left out any.
fn leave_out_faults<F: FnMut(&Plan) -> bool>(plan: &mut Plan, asking: &mut Asking<F>) -> bool {
    let all = plan.faults.len();
    let mut chunk = plan.faults.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        let before = plan.faults.len();
        while at < plan.faults.len() {
            let mut without = plan.clone();
            let end = (at + chunk).min(without.faults.len());
            without.faults.drain(at..end);
            if asking.fails(&without) {
                *plan = without;
            } else {
                at = end;
            }
        }
        // Repeats single faults while that helps: one fault may have needed another.
        chunk = match chunk {
            1 if plan.faults.len() < before => 1,
            chunk => chunk / 2,
        };
    }
    plan.faults.len() < all
}

fn storm_of(plan: &Plan, storm_ms: u64) -> Option<Plan> {
    let mut next = plan.clone();
    next.storm_ms = storm_ms.max(SHORTEST_STORM_MS);
    next.faults.retain(|fault| fault.at_ms < next.storm_ms);
    (next.storm_ms < plan.storm_ms).then_some(next)
}

fn half_the_storm(plan: &Plan) -> Option<Plan> {
    storm_of(plan, plan.storm_ms / 2)
}

fn no_storm_after_the_last_fault(plan: &Plan) -> Option<Plan> {
    let over = plan.faults.iter().map(|fault| fault.at_ms + fault.for_ms);
    storm_of(plan, over.max().unwrap_or(0) + 1)
}

fn one_producer_less(plan: &Plan) -> Option<Plan> {
    let many = plan.load.producers.len() > 1;
    changed(plan, many, |load| {
        load.producers.pop();
    })
}

fn one_partition_less(plan: &Plan) -> Option<Plan> {
    let many = plan.load.partitions > 1;
    changed(plan, many, |load| load.partitions -= 1)
}

fn no_garden(plan: &Plan) -> Option<Plan> {
    let there = plan.load.garden_every_ms > 0;
    changed(plan, there, |load| load.garden_every_ms = 0)
}

fn no_table(plan: &Plan) -> Option<Plan> {
    let there = plan.load.table_every_ms > 0;
    changed(plan, there, |load| load.table_every_ms = 0)
}

fn no_publisher(plan: &Plan) -> Option<Plan> {
    let there = plan.load.publish_every_ms > 0;
    changed(plan, there, |load| load.publish_every_ms = 0)
}

fn one_wanderer_less(plan: &Plan) -> Option<Plan> {
    let there = plan.load.wanderers > 0;
    changed(plan, there, |load| load.wanderers -= 1)
}

fn no_sieve(plan: &Plan) -> Option<Plan> {
    changed(plan, plan.load.sieve.is_some(), |load| load.sieve = None)
}

fn one_group_less(plan: &Plan) -> Option<Plan> {
    let there = !plan.load.groups.is_empty();
    changed(plan, there, |load| {
        load.groups.pop();
    })
}

fn one_member_less(plan: &Plan) -> Option<Plan> {
    let many = plan.load.groups.iter().any(|group| group.members > 1);
    changed(plan, many, |load| {
        for group in &mut load.groups {
            group.members = group.members.max(2) - 1;
        }
    })
}

fn one_growth_less(plan: &Plan) -> Option<Plan> {
    let there = !plan.load.growths.is_empty();
    changed(plan, there, |load| {
        load.growths.pop();
    })
}

fn half_as_often(plan: &Plan) -> Option<Plan> {
    let mut producers = plan.load.producers.iter();
    let often = producers.any(|producer| producer.pause_ms < SLOWEST_MS);
    changed(plan, often, |load| {
        for producer in &mut load.producers {
            producer.pause_ms = producer.pause_ms * 2 + 1;
        }
    })
}

/// The plan with small values from all producers, without bursts or replacements.
fn plain_producers(plan: &Plan) -> Option<Plan> {
    let fancy = |producer: &Producing| {
        producer.value_bytes > PLAIN_BYTES || producer.burst > 0 || producer.replace_every_ms > 0
    };
    let there = plan.load.producers.iter().any(fancy);
    changed(plan, there, |load| {
        for producer in &mut load.producers {
            producer.value_bytes = producer.value_bytes.min(PLAIN_BYTES);
            producer.burst = 0;
            producer.replace_every_ms = 0;
        }
    })
}

/// The plan with a changed load, if the change is possible.
fn changed(plan: &Plan, possible: bool, change: impl FnOnce(&mut Load)) -> Option<Plan> {
    let mut next = plan.clone();
    possible.then(|| {
        change(&mut next.load);
        next
    })
}

/// A fault that names the removed node could cause a different failure.
fn one_node_less(plan: &Plan) -> Option<Plan> {
    let mut next = plan.clone();
    next.nodes -= 1;
    (next.nodes >= FEWEST_NODES).then_some(next)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn plan() -> Plan {
        let storm = Duration::from_secs(600);
        let mut plans = (1..).map(|seed| Plan::draw(seed, storm));
        let big = plans.find(|plan| plan.nodes == 5 && plan.faults.len() > 60);
        big.expect("seeds go on for ever")
    }

    #[test]
    fn two_faults_that_fail_together_are_all_that_is_left() {
        let plan = plan();
        let (first, second) = (plan.faults[7].at_ms, plan.faults[41].at_ms);
        let mut asked = 0;
        let smallest = shrink(&plan, 1_000, |plan| {
            asked += 1;
            let there = |at_ms| plan.faults.iter().any(|fault| fault.at_ms == at_ms);
            there(first) && there(second) && plan.load.partitions > 0
        });
        let left: Vec<u64> = smallest.faults.iter().map(|fault| fault.at_ms).collect();
        assert_eq!(left, [first, second]);
        assert!(asked < 150, "asked {asked} times");
        assert!(smallest.storm_ms > second && smallest.storm_ms < second + 20_001);
        let load = &smallest.load;
        assert_eq!((load.producers.len(), load.partitions), (1, 1));
        assert_eq!((load.wanderers, load.garden_every_ms), (0, 0));
        assert_eq!(load.table_every_ms, 0);
        assert_eq!((load.groups.len(), load.growths.len()), (0, 0));
        assert_eq!(smallest.nodes, FEWEST_NODES);
    }

    #[test]
    fn what_fails_without_any_fault_is_left_with_none() {
        let smallest = shrink(&plan(), 1_000, |plan| !plan.load.producers.is_empty());
        assert!(smallest.faults.is_empty());
        assert_eq!(smallest.storm_ms, SHORTEST_STORM_MS);
    }

    #[test]
    fn what_is_needed_is_kept_and_the_number_of_attempts_is_a_bound() {
        let plan = plan();
        let nodes = plan.nodes;
        let smallest = shrink(&plan, 1_000, |plan| plan.nodes == nodes);
        assert_eq!(smallest.nodes, nodes);
        let mut asked = 0;
        shrink(&plan, 5, |_| {
            asked += 1;
            true
        });
        assert_eq!(asked, 5);
    }
}
