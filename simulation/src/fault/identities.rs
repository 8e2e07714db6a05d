//! Faults of identities and addresses: no machine fails, somebody copied or moved something.

use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

/// A fault of identities. Nodes are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identities {
    /// A new node is started with the address of another, and listens elsewhere.
    TakenAddress {
        /// Whose address.
        node: usize,
    },
    /// A node's data directory is copied, and started too.
    CopiedDirectory {
        /// Whose directory.
        node: usize,
    },
    /// Nodes are stopped and started again at other addresses, all at once, and later where they were.
    MovedAddresses {
        /// The nodes.
        nodes: Vec<usize>,
    },
}

impl Identities {
    /// The name of each kind.
    pub const KINDS: [&str; 3] = ["taken-address", "copied-directory", "moved-addresses"];

    /// Draws a fault of a kind; none if the kind is not of this family.
    pub fn draw(kind: &str, random: &mut SmallRng, nodes: usize) -> Option<Identities> {
        let node = random.random_range(0..nodes);
        Some(match kind {
            "taken-address" => Identities::TakenAddress { node },
            "copied-directory" => Identities::CopiedDirectory { node },
            "moved-addresses" => {
                let count = random.random_range(nodes / 2 + 1..=nodes);
                let nodes = rand::seq::index::sample(random, nodes, count);
                Identities::MovedAddresses {
                    nodes: nodes.into_vec(),
                }
            }
            _ => return None,
        })
    }

    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Identities::TakenAddress { .. } => "taken-address",
            Identities::CopiedDirectory { .. } => "copied-directory",
            Identities::MovedAddresses { .. } => "moved-addresses",
        }
    }
}
