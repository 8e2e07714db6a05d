//! Faults of disks.

use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::disk::DiskFault;

/// A fault of a disk. Nodes are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disks {
    /// I/O errors, for a while.
    Io {
        /// The node.
        node: usize,
    },
    /// No space, for a while.
    Full {
        /// The node.
        node: usize,
    },
    /// Hardly any space, for a while.
    LowSpace {
        /// The node.
        node: usize,
    },
    /// Syncs are slow, for a while.
    Slow {
        /// The node.
        node: usize,
        /// Duration of a sync, in ms.
        sync_ms: u64,
    },
    /// A bit is flipped or a file is cut short, permanently.
    Damage {
        /// The node.
        node: usize,
        /// True if the process ends with it, so that its successor finds the damage.
        crash: bool,
    },
    /// The disk is exchanged for an empty one.
    Wipe {
        /// The node.
        node: usize,
    },
}

impl Disks {
    /// The name of each kind.
    pub const KINDS: [&str; 6] = [
        "io-error",
        "full-disk",
        "low-space",
        "slow-disk",
        "damage",
        "wipe",
    ];

    /// Draws a fault of a kind; none if the kind is not of this family.
    pub fn draw(kind: &str, random: &mut SmallRng, nodes: usize) -> Option<Disks> {
        let node = random.random_range(0..nodes);
        Some(match kind {
            "io-error" => Disks::Io { node },
            "full-disk" => Disks::Full { node },
            "low-space" => Disks::LowSpace { node },
            "slow-disk" => Disks::Slow {
                node,
                sync_ms: random.random_range(5..1_500),
            },
            "damage" => Disks::Damage {
                node,
                crash: random.random(),
            },
            "wipe" => Disks::Wipe { node },
            _ => return None,
        })
    }

    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Disks::Io { .. } => "io-error",
            Disks::Full { .. } => "full-disk",
            Disks::LowSpace { .. } => "low-space",
            Disks::Slow { .. } => "slow-disk",
            Disks::Damage { .. } => "damage",
            Disks::Wipe { .. } => "wipe",
        }
    }

    /// The node whose disk it is.
    pub fn node(&self) -> usize {
        match self {
            Disks::Io { node }
            | Disks::Full { node }
            | Disks::LowSpace { node }
            | Disks::Slow { node, .. }
            | Disks::Damage { node, .. }
            | Disks::Wipe { node } => *node,
        }
    }

    /// The disk's fault while this lasts.
    pub fn lasting(&self) -> DiskFault {
        match self {
            Disks::Io { .. } => DiskFault::Io,
            Disks::Full { .. } => DiskFault::Full,
            Disks::LowSpace { .. } => DiskFault::LowSpace,
            Disks::Slow { sync_ms, .. } => DiskFault::SlowMs(*sync_ms),
            Disks::Damage { .. } | Disks::Wipe { .. } => DiskFault::None,
        }
    }

    /// True if the node loses a copy of its data.
    pub fn loses(&self) -> bool {
        matches!(self, Disks::Damage { .. } | Disks::Wipe { .. })
    }
}
