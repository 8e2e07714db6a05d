//! The plan of one run. Everything is drawn from the seed before the run begins. A run can therefore be
//! repeated, written down, and made smaller by leaving faults out.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use ropewalk_node::config::Limits;
use serde::{Deserialize, Serialize};

use crate::disk::DiskKind;
use crate::fault::{Fault, What};
pub use crate::load::settings::Load;

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Seed of all randomness, that of network latencies and of tokio included.
    pub seed: u64,
    /// Nodes at the start.
    pub nodes: usize,
    /// Kind of the nodes' disks.
    pub disk: DiskKind,
    /// Bytes of log for each byte of a checkpoint; 0 for a checkpoint at every opportunity.
    #[serde(default = "checkpoint_factor")]
    pub checkpoint_factor: u64,
    /// Step of virtual time, in simulated ms: the coarser, the more happens at once.
    pub tick_ms: u64,
    /// Duration of faults and load, in simulated ms.
    pub storm_ms: u64,
    /// The clients' load.
    pub load: Load,
    /// The faults, by time.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// Draws the plan of a seed, with disks in memory.
    pub fn draw(seed: u64, storm: Duration) -> Plan {
        // Not the generator that turmoil seeds with the same number.
        let mut random = SmallRng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let nodes = *[3, 3, 3, 4, 5].choose(&mut random).unwrap_or(&3);
        let storm_ms = storm.as_millis() as u64;
        let faults = draw_faults(&mut random, nodes, storm_ms);
        Plan {
            seed,
            nodes,
            disk: DiskKind::Memory,
            tick_ms: *[1, 2, 4].choose(&mut random).unwrap_or(&1),
            checkpoint_factor: *[0, checkpoint_factor()].choose(&mut random).unwrap_or(&0),
            storm_ms,
            load: Load::draw(seed, storm_ms),
            faults,
        }
    }

    /// The same plan on disks of another kind.
    #[must_use]
    pub fn on(self, disk: DiskKind) -> Plan {
        Plan { disk, ..self }
    }

    /// Fewest replicas that a topic of this run may have: three if a planned fault loses a copy of records.
    pub fn fewest_replicas(&self) -> u32 {
        match self.faults.iter().any(|fault| fault.what.loses_copies()) {
            true => 3,
            false => 1,
        }
    }
}

/// Default of a node.
fn checkpoint_factor() -> u64 {
    Limits::default().checkpoint_factor
}

/// One run in this many has no faults at all.
const QUIET: u32 = 16;
/// Kinds that make no sense where every node holds every partition.
const NEED_A_FOURTH: [&str; 2] = ["partition-move", "decommission"];

/// Swarm testing: each run enables a part of the kinds, each with an intensity of its own, since faults that
/// all occur at once hide each other.
fn draw_faults(random: &mut SmallRng, nodes: usize, storm_ms: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    if random.random_ratio(1, QUIET) {
        return faults;
    }
    let share = *[0.1, 0.2, 0.4].choose(random).unwrap_or(&0.2);
    for kind in What::kinds() {
        let fits = nodes > 3 || !NEED_A_FOURTH.contains(&kind);
        if !random.random_bool(share) || !fits {
            continue;
        }
        let every_ms = random.random_range(5_000..=30_000);
        draw_kind(random, kind, (nodes, every_ms, storm_ms), &mut faults);
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

/// Faults of one kind, at about the given interval.
pub fn draw_kind(
    random: &mut SmallRng,
    kind: &str,
    (nodes, every_ms, storm_ms): (usize, u64, u64),
    faults: &mut Vec<Fault>,
) {
    // Before that no data exists that a fault could lose.
    let mut at_ms = random.random_range(3_000..=3_000 + every_ms);
    while at_ms < storm_ms {
        faults.push(Fault {
            at_ms,
            for_ms: random.random_range(500..=10_000),
            what: What::draw(kind, random, nodes),
        });
        at_ms += random.random_range(every_ms / 2..=every_ms * 3 / 2);
    }
}
