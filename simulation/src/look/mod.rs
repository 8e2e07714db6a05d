//! What the hosts' disks hold at one moment, seen from outside: the hosts know nothing of it.
//!
//! The [`eye`] looks; [`truth`] adds up what is committed. Nothing here judges.

pub mod eye;
pub mod truth;

use std::collections::BTreeSet;
use std::time::Duration;

use ropewalk_node::group::Groups;
use ropewalk_raft_store::inspect::Inspection;

/// One look at all disks.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// When, in simulated time.
    pub at: Duration,
    /// Whether every entry there is was read, and not only what may have changed.
    pub whole: bool,
    /// How many disks were looked at as a power loss would leave them.
    pub survivors: usize,
    /// What was seen.
    pub replicas: Vec<Replica>,
}

/// How a disk was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Image {
    /// As its process sees it.
    Live,
    /// As a power loss at that moment would leave it.
    Durable,
}

/// One replica in one image of one disk.
#[derive(Debug, Clone)]
pub struct Replica {
    /// The host; once hosts have exchanged their disks, that where this one was at first.
    pub host: String,
    /// Which image.
    pub image: Image,
    /// How many times what this disk holds may have gone back.
    pub setbacks: u64,
    /// How many times even what was synced may have gone.
    pub losses: u64,
    /// Whether anything on this disk was damaged since it was new.
    pub on_damaged_disk: bool,
    /// What is there of the replica.
    pub seen: Inspection,
    /// What its state says; only of partitions, and only in a live image.
    pub state: Option<State>,
}

/// What a partition's state says.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The offset the next record gets.
    pub next_offset: u64,
    /// The first offset that may be read.
    pub log_start: u64,
    /// Up to this log index appends that were refused are forgotten.
    pub purgeable_index: u64,
    /// Of the entries seen, those that are refused appends, by log index.
    pub refused: BTreeSet<u64>,
    /// The consumer groups that are coordinated there.
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
    /// Who and where, for a report.
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
