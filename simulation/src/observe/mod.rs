//! Content of the hosts' disks at one moment, seen from outside without the hosts' knowledge.
//!
//! The [`disk_reader`] looks; [`committed_model`] collects the committed entries. **Nothing here judges.**

pub mod committed_model;
pub mod disk_reader;

use std::collections::BTreeSet;
use std::time::Duration;

use ropewalk_machines::consumer_group::Groups;
use ropewalk_raft_store::inspect::Inspection;

use crate::directory::SetAside;

/// One look at all disks.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Time of the look, in simulated time.
    pub at: Duration,
    /// True if every entry was read, and not only entries that may have changed.
    pub whole: bool,
    /// Number of disks that were looked at as a power loss would leave them.
    pub survivors: usize,
    /// Replicas found on the disks.
    pub replicas: Vec<Replica>,
    /// Databases that the nodes have set aside so far.
    pub set_aside: Vec<SetAside>,
}

/// Image of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Image {
    /// The disk as its process sees it.
    Live,
    /// The disk as a power loss at that moment would leave it.
    Durable,
}

/// One replica in one image of one disk.
#[derive(Debug, Clone)]
pub struct Replica {
    /// The host; after an exchange of disks, the host that first had this disk.
    pub host: String,
    /// The image it was found in.
    pub image: Image,
    /// Number of times that the content of this disk may have gone back.
    pub setbacks: u64,
    /// Number of times that even synced data may be gone.
    pub losses: u64,
    /// True if this disk was damaged since it was new.
    pub on_damaged_disk: bool,
    /// Inspection of the replica.
    pub seen: Inspection,
    /// State of the replica; only of partitions, and only in a live image.
    pub state: Option<State>,
}

/// A partition's state.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Offset of the next record.
    pub next_offset: u64,
    /// First offset that may be read.
    pub log_start: u64,
    /// Log index up to which refused appends are forgotten.
    pub purgeable_index: u64,
    /// Log indexes of the inspected entries that are refused appends.
    pub refused: BTreeSet<u64>,
    /// Consumer groups that this partition coordinates.
    pub groups: Groups,
}

impl Look {
    /// The replicas in one kind of image.
    pub fn of(&self, image: Image) -> impl Iterator<Item = &Replica> {
        self.replicas
            .iter()
            .filter(move |replica| replica.image == image)
    }
}

impl Replica {
    /// Replica and host, for a report.
    pub fn name(&self) -> String {
        let image = match self.image {
            Image::Live => "live",
            Image::Durable => "durable",
        };
        format!(
            "replica {} of group {} on {} ({image})",
            self.seen.replica, self.seen.group, self.host
        )
    }
}
