//! What goes wrong with wall clocks.

use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

const HOUR_MS: i64 = 3_600_000;
/// Beyond every limit of time that there is: how long producers, groups and records are kept.
const LONGEST_STEP_MS: i64 = 100 * 24 * HOUR_MS;

/// A fault of a wall clock. Nodes are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clocks {
    /// It is set wrong, and later right again: a step each time.
    Step {
        /// Whose.
        node: usize,
        /// By how much, in ms.
        skew_ms: i64,
    },
    /// It goes too fast or too slowly, or backwards.
    Drift {
        /// Whose.
        node: usize,
        /// What it gains in a million ms, in ms.
        ppm: i64,
    },
}

impl Clocks {
    /// The name of each kind.
    pub const KINDS: [&str; 3] = ["clock-forward", "clock-back", "clock-drift"];

    /// Draws a fault of a kind; none if the kind is not of this family.
    pub fn draw(kind: &str, random: &mut SmallRng, nodes: usize) -> Option<Clocks> {
        let node = random.random_range(0..nodes);
        // Steps of all sizes, down to those that nobody notices.
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

    /// Whose clock it is.
    pub fn node(&self) -> usize {
        match self {
            Clocks::Step { node, .. } | Clocks::Drift { node, .. } => *node,
        }
    }
}
