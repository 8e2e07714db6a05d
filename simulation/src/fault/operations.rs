//! What operators do while everything goes wrong: no faults, and yet what breaks systems.

use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

/// What is asked of the cluster. Nodes are counted from 0; partitions are those of all topics,
/// counted round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operations {
    /// A partition is to be led by another of its replicas.
    Transfer {
        /// Which.
        partition: usize,
        /// Which of its replicas.
        replica: usize,
    },
    /// A partition's replicas are to be on as many other nodes as there are.
    Move {
        /// Which.
        partition: usize,
        /// The first node; the others are those after it.
        first: usize,
    },
    /// A node is to lead nothing, for a while.
    Drain {
        /// Which.
        node: usize,
    },
    /// A node is to leave. Once it has, it comes back as a new one; if it has not in time, it stays.
    Decommission {
        /// Which.
        node: usize,
    },
    /// One more node.
    Join,
}

impl Operations {
    /// The name of each kind.
    pub const KINDS: [&str; 5] = [
        "leader-transfer",
        "partition-move",
        "drain",
        "decommission",
        "join",
    ];

    /// Draws one of a kind; none if the kind is not of this family.
    pub fn draw(kind: &str, random: &mut SmallRng, nodes: usize) -> Option<Operations> {
        let node = random.random_range(0..nodes);
        let partition = random.random_range(0..1_000);
        Some(match kind {
            "leader-transfer" => Operations::Transfer {
                partition,
                replica: random.random_range(0..1_000),
            },
            "partition-move" => Operations::Move {
                partition,
                first: node,
            },
            "drain" => Operations::Drain { node },
            "decommission" => Operations::Decommission { node },
            "join" => Operations::Join,
            _ => return None,
        })
    }

    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Operations::Transfer { .. } => "leader-transfer",
            Operations::Move { .. } => "partition-move",
            Operations::Drain { .. } => "drain",
            Operations::Decommission { .. } => "decommission",
            Operations::Join => "join",
        }
    }
}
