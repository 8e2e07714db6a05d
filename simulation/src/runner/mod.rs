//! Runs of seeds, each in a separate process: many in parallel, or one twice for comparison. A failing plan
//! is repeated with less of everything until it is as small as possible.

pub mod bugs;
pub mod child;
pub mod faults;
pub mod in_process;
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

/// One seed, with the other inputs of its plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Job {
    /// The seed.
    pub seed: u64,
    /// Duration of the faults, in simulated seconds.
    pub seconds: u64,
    /// Kind of the nodes' disks.
    pub disk: DiskKind,
    /// Selected kinds of faults.
    pub faults: Faults,
}

impl Job {
    /// Plan of the run.
    pub fn plan(&self) -> Plan {
        let plan = Plan::draw(self.seed, Duration::from_secs(self.seconds));
        self.faults.of(plan.on(self.disk))
    }

    /// Command-line arguments that select this run.
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

    /// The one command that replays the run.
    pub fn replay(&self) -> String {
        format!("{COMMAND} replay {}", self.arguments().join(" "))
    }
}

/// Command that calls the simulator in a checkout.
const COMMAND: &str = "cargo run --release -p ropewalk-simulation --";

/// The one command that replays a plan from a file.
pub fn replay_of_plan(plan: &Path) -> String {
    format!("{COMMAND} replay --plan {}", plan.display())
}
