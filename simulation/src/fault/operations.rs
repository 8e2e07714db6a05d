//! Work of operators during faults. It is no fault itself, and yet it breaks systems.

use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

/// A request to the cluster. Nodes are counted from 0. Partitions are those of all topics, modulo their
/// count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operations {
    /// Transfer a partition's leadership to another replica.
    Transfer {
        /// The partition.
        partition: usize,
        /// The replica.
        replica: usize,
    },
    /// Move a partition's replicas to the same number of other nodes.
    Move {
        /// The partition.
        partition: usize,
        /// The first node; the others are those after it.
        first: usize,
    },
    /// Drain a node of leaderships, for a while.
    Drain {
        /// The node.
        node: usize,
    },
    /// Remove a node. Once it has left, it comes back as a new one; if it does not leave in time, it stays.
    Decommission {
        /// The node.
        node: usize,
    },
    /// Add a node.
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
