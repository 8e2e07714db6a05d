//! Faults of wall clocks.

use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

const HOUR_MS: i64 = 3_600_000;
/// Beyond every time limit: the retention of producers, groups and records.
const LONGEST_STEP_MS: i64 = 100 * 24 * HOUR_MS;

/// A fault of a wall clock. Nodes are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clocks {
    /// The clock is set wrong, and later right again: a step each time.
    Step {
        /// The node.
        node: usize,
        /// The error, in ms.
        skew_ms: i64,
    },
    /// The clock runs too fast, too slowly, or backwards.
    Drift {
        /// The node.
        node: usize,
        /// Gain in a million ms, in ms.
        ppm: i64,
    },
}

impl Clocks {
    /// The name of each kind.
    pub const KINDS: [&str; 3] = ["clock-forward", "clock-back", "clock-drift"];

    /// Draws a fault of a kind; none if the kind is not of this family.
    pub fn draw(kind: &str, random: &mut SmallRng, nodes: usize) -> Option<Clocks> {
        let node = random.random_range(0..nodes);
        // Steps of all sizes, down to ones that no node notices.
        let size = [50, 5_000, HOUR_MS, LONGEST_STEP_MS][random.random_range(0..4)];
        let step = random.random_range(1..=size);
        Some(match kind {
            "clock-forward" => Clocks::Step {
                node,
                skew_ms: step,
            },
            "clock-back" => Clocks::Step {
                node,
                skew_ms: -step,
            },
            "clock-drift" => Clocks::Drift {
                node,
                ppm: random.random_range(-2_000_000..=2_000_000),
            },
            _ => return None,
        })
    }

    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Clocks::Step { skew_ms, .. } if *skew_ms < 0 => "clock-back",
            Clocks::Step { .. } => "clock-forward",
            Clocks::Drift { .. } => "clock-drift",
        }
    }

    /// The node whose clock it is.
    pub fn node(&self) -> usize {
        match self {
            Clocks::Step { node, .. } | Clocks::Drift { node, .. } => *node,
        }
    }
}
