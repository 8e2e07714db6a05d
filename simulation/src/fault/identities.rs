//! Faults of identities and addresses: no machine fails; an operator copied or moved something.

use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

/// A fault of identities. Nodes are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identities {
    /// A new node is started with the address of another, and listens elsewhere.
    TakenAddress {
        /// Node whose address is used.
        node: usize,
    },
    /// A node's data directory is copied, and started too.
    CopiedDirectory {
        /// Node whose directory is copied.
        node: usize,
    },
    /// Nodes are stopped and started again at other addresses, all at once, and later where they were.
    MovedAddresses {
        /// The nodes.
        nodes: Vec<usize>,
    },
    /// Two nodes are stopped, and each is started where the other was, for good.
    SwappedAddresses {
        /// The nodes.
        nodes: [usize; 2],
    },
}

impl Identities {
    /// The name of each kind.
    pub const KINDS: [&str; 4] = [
        "taken-address",
        "copied-directory",
        "moved-addresses",
        "swapped-addresses",
    ];

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
            "swapped-addresses" => {
                let step = random.random_range(1..nodes);
                Identities::SwappedAddresses {
                    nodes: [node, (node + step) % nodes],
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
            Identities::SwappedAddresses { .. } => "swapped-addresses",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn nodes_that_swap_their_addresses_are_two() {
        for seed in 0..200 {
            let random = &mut SmallRng::seed_from_u64(seed);
            let drawn = Identities::draw("swapped-addresses", random, 3);
            let Some(Identities::SwappedAddresses { nodes }) = drawn else {
                panic!("another kind: {drawn:?}");
            };
            assert!(nodes[0] != nodes[1] && nodes.iter().all(|node| *node < 3));
        }
    }
}
