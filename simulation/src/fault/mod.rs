//! What goes wrong, and when. [`Injector`] brings a plan's faults over a running simulation.
//!
//! One file for each family of faults says what there is to draw; [`Injector`] makes it happen.
//! A fault is counted once it took effect, not when it was tried. Nothing in here may know what the
//! cluster should have done about it: that is for the checks.

mod atlas;
mod clocks;
mod disks;
mod identities;
mod impostors;
mod injector;
mod network;
mod operations;
mod operator;
mod processes;
mod strike;

use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

pub use clocks::Clocks;
pub use disks::Disks;
pub use identities::Identities;
pub use injector::Injector;
pub use network::Network;
pub use operations::Operations;
pub use processes::{Processes, Reach, Reason};

/// One fault: from `at_ms` on, for `for_ms`, in simulated ms since the start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fault {
    /// When it falls.
    pub at_ms: u64,
    /// How long it lasts.
    pub for_ms: u64,
    /// What it is.
    pub what: What,
}

/// A fault, with what it falls on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// Between hosts.
    Network(Network),
    /// To processes and their power.
    Processes(Processes),
    /// To disks.
    Disks(Disks),
    /// To wall clocks.
    Clocks(Clocks),
    /// To who nodes are and where.
    Identities(Identities),
    /// No fault, but what operators do meanwhile.
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

    /// The family a kind is of.
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

    /// Whether a copy of records is lost by it.
    pub fn loses_copies(&self) -> bool {
        matches!(self, What::Disks(disks) if disks.loses())
    }
}
