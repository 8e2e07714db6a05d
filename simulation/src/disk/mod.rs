//! Disks of simulated hosts: what stays of a host's storage while it is down, and how it is hurt.
//!
//! Above the [`Disk`] seam everything is the product's own code; on the RocksDB kind the database
//! is, too. How storage works must never be written a second time in here.

mod files;
mod memory;
mod rocks;
mod seam;

use std::fmt::{self, Debug};
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::SmallRng;
use ropewalk_raft_store::{Disk, DiskError};
use serde::{Deserialize, Serialize};

pub use memory::MemoryMachine;
pub use rocks::RocksMachine;

/// The storage of one host: it outlives the processes that open it.
pub trait SimDisk: Send + Sync + Debug {
    /// Opens it for a process. Whatever an earlier process holds of it is cut off: what that one
    /// still writes goes nowhere.
    ///
    /// # Errors
    /// What the product's own disk would say: damage that it found, or a fault that is on.
    fn open(&self) -> Result<Arc<dyn Disk>, DiskError>;

    /// Takes the power away: what was synced survives, and of the rest a prefix drawn from
    /// `random`, on RocksDB with a torn record at its end. Call it before the process is ended, so
    /// that nothing of its last moments gets to the disk.
    fn power_loss(&self, random: &mut SmallRng);

    /// Ends the process and not the machine: everything written survives. Call it before the
    /// process is ended.
    fn crash(&self);

    /// Replaces what is stored by nothing, as an exchanged disk is.
    fn wipe(&self);

    /// Another disk that holds what is on this one now, as a copied directory does. What it does of its own
    /// accord is drawn from `seed`.
    fn copy(&self, seed: u64) -> Arc<dyn SimDisk>;

    /// What is wrong with the disk from now on.
    fn set_fault(&self, fault: DiskFault);

    /// Flips one bit of what is stored durably, or cuts something short. Says what was hurt, or
    /// `None` if nothing was there to be.
    ///
    /// It hurts only what can be found out by the one who reads it: a write-ahead log or a manifest
    /// that is cut while the mark of how far it was synced is lost, too, looks like one that ended
    /// there.
    fn damage(&self, random: &mut SmallRng) -> Option<String>;

    /// What is stored durably, piece by piece: the same for the same calls and seeds.
    fn image(&self) -> Vec<(Bytes, Bytes)>;

    /// What is on it as its process sees it, for judges. Its futures are ready when they are first
    /// polled. None while no process has it open, where that is needed to see anything.
    fn live(&self) -> Option<Arc<dyn Disk>>;

    /// What a power loss right now would leave if it took all it can; none if that does not open.
    /// To be read like [`SimDisk::live`].
    fn survivor(&self) -> Option<Arc<dyn Disk>>;

    /// A number that is another one after a change of what [`SimDisk::live`] and
    /// [`SimDisk::survivor`] hold, or let be read; none where looking is as cheap as asking.
    fn version(&self) -> Option<u64>;

    /// Whether [`SimDisk::survivor`] takes no more than a moment.
    fn survivor_is_cheap(&self) -> bool;

    /// What has happened to it so far.
    fn setbacks(&self) -> Setbacks;
}

/// How many times what a disk holds may have become less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Setbacks {
    /// By a loss of power: what was not synced may be gone.
    pub power_losses: u64,
    /// By damage or exchange: what was synced may be gone.
    pub losses: u64,
    /// Whether anything on it was damaged since it was new.
    pub damaged: bool,
}

impl Setbacks {
    /// Something that was synced may be gone: by damage, or with the whole disk.
    fn lose(&mut self, damaged: bool) {
        self.losses += 1;
        self.damaged = damaged;
    }
}

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DiskFault {
    /// Nothing. What failed before stays failed until the disk is opened again.
    #[default]
    None,
    /// I/O errors: commits fail, and an opened disk is no good.
    Io,
    /// No space is left: commits fail.
    Full,
    /// Less space is left than any floor, and commits still succeed.
    LowSpace,
    /// Each sync takes so many ms of virtual time. A power loss meanwhile may take what is being
    /// synced.
    SlowMs(u64),
}

/// Which disk the hosts of a simulation have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DiskKind {
    /// A map in memory: fast.
    #[serde(rename = "memory")]
    Memory,
    /// RocksDB on files in memory: what the product runs on.
    #[serde(rename = "rocksdb")]
    Rocks,
}

impl DiskKind {
    /// All kinds.
    pub const ALL: [DiskKind; 2] = [DiskKind::Memory, DiskKind::Rocks];

    /// An empty disk. What it does of its own accord is drawn from `seed`.
    pub fn machine(self, seed: u64) -> Arc<dyn SimDisk> {
        match self {
            DiskKind::Memory => Arc::new(MemoryMachine::default()),
            DiskKind::Rocks => Arc::new(RocksMachine::new(seed)),
        }
    }
}

impl fmt::Display for DiskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskKind::Memory => "memory",
            DiskKind::Rocks => "rocksdb",
        })
    }
}

impl FromStr for DiskKind {
    type Err = String;

    fn from_str(text: &str) -> Result<DiskKind, String> {
        let kind = DiskKind::ALL
            .into_iter()
            .find(|kind| kind.to_string() == text);
        kind.ok_or_else(|| format!("there is no disk {text}: memory or rocksdb"))
    }
}
