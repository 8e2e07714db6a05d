//! Running seeds: each in a process of its own, many side by side, twice to compare, and again and
//! again with less of everything until a failure is as small as it gets.

pub mod bugs;
pub mod child;
pub mod faults;
pub mod here;
pub mod report;
pub mod seeds;
pub mod shrink;
pub mod summary;
pub mod twice;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use self::faults::Faults;
use crate::disk::DiskKind;
use crate::plan::Plan;

/// One seed, and what else it takes to draw its plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Job {
    /// The seed.
    pub seed: u64,
    /// How long faults fall, in simulated seconds.
    pub seconds: u64,
    /// What the nodes store on.
    pub disk: DiskKind,
    /// Which kinds of faults fall.
    pub faults: Faults,
}

impl Job {
    /// What is to happen.
    pub fn plan(&self) -> Plan {
        let plan = Plan::draw(self.seed, Duration::from_secs(self.seconds));
        self.faults.of(plan.on(self.disk))
    }

    /// The arguments that say which run is meant.
    pub fn arguments(&self) -> Vec<String> {
        let Job {
            seed,
            seconds,
            disk,
            faults,
        } = self;
        let mut all = format!("--seed {seed} --seconds {seconds} --disk {disk}");
        if *faults != Faults::All {
            all.push_str(&format!(" --faults {faults}"));
        }
        all.split(' ').map(str::to_owned).collect()
    }

    /// The one command that shows what happened.
    pub fn replay(&self) -> String {
        format!("{COMMAND} replay {}", self.arguments().join(" "))
    }
}

/// How the simulator is called in a checkout.
const COMMAND: &str = "cargo run --release -p ropewalk-simulation --";

/// The one command that shows what happens in a plan that was written down.
pub fn replay_of_plan(plan: &Path) -> String {
    format!("{COMMAND} replay --plan {}", plan.display())
}
