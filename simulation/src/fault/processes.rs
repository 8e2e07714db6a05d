//! Faults of processes and their power.

use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::process::Moment;

/// A fault of processes. Nodes are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Processes {
    /// Processes end at once; everything they wrote survives.
    Crash {
        /// Part of all nodes.
        reach: Reach,
        /// The nodes.
        nodes: Vec<usize>,
    },
    /// Power is lost; unsynced data may be gone.
    PowerLoss {
        /// Part of all nodes.
        reach: Reach,
        /// The nodes.
        nodes: Vec<usize>,
    },
    /// A process ends at a chosen moment, on the node that reaches it first.
    At {
        /// The moment.
        moment: Moment,
        /// Ordinal number of the moment.
        count: u32,
        /// True if the node loses its power.
        power: bool,
        /// Candidate nodes.
        nodes: Vec<usize>,
    },
    /// A process is asked to end, and restarts.
    Stop {
        /// The node.
        node: usize,
        /// The reason.
        reason: Reason,
    },
    /// All processes are asked to end, one after the other.
    Rolling {
        /// Interval between two of them, in ms.
        gap_ms: u64,
    },
    /// Processes stop for a while and then continue.
    Pause {
        /// The nodes.
        nodes: Vec<usize>,
    },
}

/// Number of nodes affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// One.
    One,
    /// More than half, but not all.
    Majority,
    /// All.
    All,
}

/// Reason to end a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// No reason.
    Plain,
    /// A rolling restart has reached it.
    Rolling,
    /// Its limits are made smaller.
    Smaller,
}

impl Processes {
    /// The name of each kind.
    pub const KINDS: [&str; 14] = [
        "crash-of-one",
        "crash-of-majority",
        "crash-of-all",
        "power-loss-of-one",
        "power-loss-of-majority",
        "power-loss-of-all",
        "crash-in-append",
        "crash-after-vote",
        "crash-in-install",
        "crash-in-recovery",
        "graceful-restart",
        "rolling-restart",
        "smaller-configuration",
        "pause",
    ];

    /// Draws a fault of a kind; none if the kind is not of this family.
    pub fn draw(kind: &str, random: &mut SmallRng, nodes: usize) -> Option<Processes> {
        let node = random.random_range(0..nodes);
        let stop = |reason| Processes::Stop { node, reason };
        let mut at = |moment, most, nodes| Processes::At {
            moment,
            count: random.random_range(1..=most),
            power: random.random(),
            nodes,
        };
        Some(match kind {
            "crash-in-append" => at(Moment::Append, 20, vec![node]),
            "crash-after-vote" => at(Moment::Vote, 3, (0..nodes).collect()),
            "crash-in-install" => at(Moment::Install, 1, (0..nodes).collect()),
            "crash-in-recovery" => at(Moment::Recovery, 60, vec![node]),
            "graceful-restart" => stop(Reason::Plain),
            "smaller-configuration" => stop(Reason::Smaller),
            "rolling-restart" => Processes::Rolling {
                gap_ms: random.random_range(500..5_000),
            },
            "pause" => Processes::Pause {
                nodes: match random.random_range(0..4) {
                    0 => Reach::Majority.draw(random, nodes),
                    _ => vec![node],
                },
            },
            _ => return Processes::draw_loss(kind, random, nodes),
        })
    }

    fn draw_loss(kind: &str, random: &mut SmallRng, all: usize) -> Option<Processes> {
        let (what, reach) = kind.split_once("-of-")?;
        let reach = match reach {
            "one" => Reach::One,
            "majority" => Reach::Majority,
            "all" => Reach::All,
            _ => return None,
        };
        let nodes = reach.draw(random, all);
        match what {
            "crash" => Some(Processes::Crash { reach, nodes }),
            "power-loss" => Some(Processes::PowerLoss { reach, nodes }),
            _ => None,
        }
    }

    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Processes::Crash { reach, .. } => match reach {
                Reach::One => "crash-of-one",
                Reach::Majority => "crash-of-majority",
                Reach::All => "crash-of-all",
            },
            Processes::PowerLoss { reach, .. } => match reach {
                Reach::One => "power-loss-of-one",
                Reach::Majority => "power-loss-of-majority",
                Reach::All => "power-loss-of-all",
            },
            Processes::At { moment, .. } => match moment {
                Moment::Append => "crash-in-append",
                Moment::Vote => "crash-after-vote",
                Moment::Install => "crash-in-install",
                Moment::Recovery => "crash-in-recovery",
            },
            Processes::Stop { reason, .. } => match reason {
                Reason::Plain => "graceful-restart",
                Reason::Rolling => "rolling-restart",
                Reason::Smaller => "smaller-configuration",
            },
            Processes::Rolling { .. } => "rolling-restart",
            Processes::Pause { .. } => "pause",
        }
    }
}

impl Reach {
    fn draw(self, random: &mut SmallRng, nodes: usize) -> Vec<usize> {
        let count = match self {
            Reach::One => 1,
            Reach::Majority => random.random_range(nodes / 2 + 1..nodes.max(nodes / 2 + 2)),
            Reach::All => nodes,
        };
        rand::seq::index::sample(random, nodes, count).into_vec()
    }
}
