//! What goes wrong, and when. [`Injector`] brings a plan's faults over a running simulation.

mod injector;

use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

pub use injector::Injector;

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

/// A kind of fault, with what it falls on. Nodes are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// These nodes and the others don't hear each other.
    Partition {
        /// One side.
        nodes: Vec<usize>,
    },
    /// What `from` says to `to` is lost; not the other way.
    OneWay {
        /// Who is not heard.
        from: usize,
        /// Who does not hear.
        to: usize,
    },
    /// Processes end; what they wrote stays.
    Crash {
        /// Whose.
        nodes: Vec<usize>,
    },
    /// Power is lost; what was not synced may be gone.
    PowerLoss {
        /// Whose.
        nodes: Vec<usize>,
    },
    /// A wall clock is set wrong.
    Clock {
        /// Whose.
        node: usize,
        /// By how much, in ms.
        skew_ms: i64,
    },
}

impl What {
    /// The name of each kind.
    pub const KINDS: [&str; 5] = ["partition", "one-way", "crash", "power-loss", "clock"];

    /// Draws a fault of a kind.
    ///
    /// # Panics
    /// If there is no such kind.
    pub fn draw(kind: &str, random: &mut SmallRng, nodes: usize) -> What {
        match kind {
            "partition" => What::Partition {
                nodes: some(random, nodes),
            },
            "one-way" => {
                let from = random.random_range(0..nodes);
                let to = (from + random.random_range(1..nodes)) % nodes;
                What::OneWay { from, to }
            }
            "crash" => What::Crash {
                nodes: some(random, nodes),
            },
            "power-loss" => What::PowerLoss {
                nodes: some(random, nodes),
            },
            "clock" => What::Clock {
                node: random.random_range(0..nodes),
                skew_ms: random.random_range(-3_600_000..=3_600_000),
            },
            other => panic!("no such kind of fault: {other}"),
        }
    }

    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            What::Partition { .. } => "partition",
            What::OneWay { .. } => "one-way",
            What::Crash { .. } => "crash",
            What::PowerLoss { .. } => "power-loss",
            What::Clock { .. } => "clock",
        }
    }
}

/// One node mostly, at times more, and now and then all.
fn some(random: &mut SmallRng, nodes: usize) -> Vec<usize> {
    let count = match random.random_range(0..10) {
        0 => nodes,
        1..=3 => random.random_range(1..=nodes),
        _ => 1,
    };
    rand::seq::index::sample(random, nodes, count).into_vec()
}
