//! Faults and their times. [`Injector`] applies a plan's faults to a running simulation.
//!
//! One file for each family of faults defines the faults that can be drawn; [`Injector`] carries them out. A
//! fault counts once it took effect, not when it was tried. **Nothing in here may know how the cluster should
//! react to a fault:** the checks do.

mod clocks;
mod disks;
mod fault_budget;
mod identities;
mod impostors;
mod injector;
mod network;
mod operations;
mod operator;
mod processes;
mod start_fault;

use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

pub use clocks::Clocks;
pub use disks::Disks;
pub use identities::Identities;
pub use injector::Injector;
pub use network::Network;
pub use operations::Operations;
pub use processes::{Processes, Reach, Reason};

/// One fault: it starts at `at_ms` and lasts for `for_ms`, in simulated ms since the start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fault {
    /// Its start.
    pub at_ms: u64,
    /// Its duration.
    pub for_ms: u64,
    /// The fault itself.
    pub what: What,
}

/// A fault and its targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// Fault between hosts.
    Network(Network),
    /// Fault of processes and their power.
    Processes(Processes),
    /// Fault of disks.
    Disks(Disks),
    /// Fault of wall clocks.
    Clocks(Clocks),
    /// Fault of nodes' identities and addresses.
    Identities(Identities),
    /// Work of operators, which is no fault.
    Operations(Operations),
}

/// The families, and the kinds in each.
const FAMILIES: [(&str, &[&str]); 6] = [
    ("network", &Network::KINDS),
    ("process", &Processes::KINDS),
    ("disk", &Disks::KINDS),
    ("clock", &Clocks::KINDS),
    ("operation", &Operations::KINDS),
    ("identity", &Identities::KINDS),
];

impl What {
    /// The name of each kind.
    pub fn kinds() -> impl Iterator<Item = &'static str> {
        FAMILIES.into_iter().flat_map(|(_, kinds)| kinds).copied()
    }

    /// The name of each family of kinds.
    pub fn families() -> impl Iterator<Item = &'static str> {
        FAMILIES.into_iter().map(|(family, _)| family)
    }

    /// The family of a kind.
    pub fn family(kind: &str) -> Option<&'static str> {
        let mut families = FAMILIES.into_iter();
        let found = families.find(|(_, kinds)| kinds.contains(&kind));
        found.map(|(family, _)| family)
    }

    /// Draws a fault of a kind.
    ///
    /// # Panics
    /// If there is no such kind.
    pub fn draw(kind: &str, random: &mut SmallRng, nodes: usize) -> What {
        let drawn = Network::draw(kind, random, nodes).map(What::Network);
        drawn
            .or_else(|| Processes::draw(kind, random, nodes).map(What::Processes))
            .or_else(|| Disks::draw(kind, random, nodes).map(What::Disks))
            .or_else(|| Clocks::draw(kind, random, nodes).map(What::Clocks))
            .or_else(|| Identities::draw(kind, random, nodes).map(What::Identities))
            .or_else(|| Operations::draw(kind, random, nodes).map(What::Operations))
            .unwrap_or_else(|| panic!("no such kind of fault: {kind}"))
    }

    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            What::Network(network) => network.kind(),
            What::Processes(processes) => processes.kind(),
            What::Disks(disks) => disks.kind(),
            What::Clocks(clocks) => clocks.kind(),
            What::Identities(identities) => identities.kind(),
            What::Operations(operations) => operations.kind(),
        }
    }

    /// True if nodes are at other addresses until it is over.
    pub fn is_move(&self) -> bool {
        matches!(self, What::Identities(Identities::MovedAddresses { .. }))
    }

    /// True if a copy of records is lost.
    pub fn loses_copies(&self) -> bool {
        matches!(self, What::Disks(disks) if disks.loses())
    }
}
