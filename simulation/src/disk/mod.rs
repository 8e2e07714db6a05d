//! Disks of simulated hosts: the storage that a host keeps while it is down, and the ways to damage it.
//!
//! Above the [`Disk`] seam everything is the product's own code; on the RocksDB kind the database is, too.
//! **Storage must never be implemented a second time in here.**

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
    /// Opens it for a process. Handles of earlier processes are cut off: their writes are dropped.
    ///
    /// # Errors
    /// Those of the product's own disk: damage that it found, or an active fault.
    fn open(&self) -> Result<Arc<dyn Disk>, DiskError>;

    /// Takes the power away. Synced data survives, and of the rest a prefix drawn from `random`; on RocksDB a
    /// torn record ends it. Call it before the process is ended, so that its last writes do not reach the
    /// disk.
    fn power_loss(&self, random: &mut SmallRng);

    /// Ends the process but not the machine: everything written survives. Call it before the process is
    /// ended.
    fn crash(&self);

    /// Replaces the stored data with nothing: the disk was exchanged, or its database set aside. Handles that are
    /// still open are cut off.
    fn wipe(&self);

    /// A second disk with the present content of this one, like a copied directory. Its own random behaviour
    /// is drawn from `seed`.
    fn copy(&self, seed: u64) -> Arc<dyn SimDisk>;

    /// Sets the disk's fault from now on.
    fn set_fault(&self, fault: DiskFault);

    /// Present fault of the disk.
    fn fault(&self) -> DiskFault;

    /// Flips one bit of the durable data, or cuts something short. Returns a description of the damage, or
    /// `None` if the disk held nothing to damage.
    ///
    /// It causes only damage that a reader can detect. A write-ahead log or a manifest that is cut while its
    /// durability mark is lost, too, looks like one that ended there.
    fn damage(&self, random: &mut SmallRng) -> Option<String>;

    /// The durable data, piece by piece: the same for the same calls and seeds.
    fn image(&self) -> Vec<(Bytes, Bytes)>;

    /// Its content as its process sees it, for judges. Its futures are ready at their first poll. None while
    /// no process has it open, if it can be seen only then.
    fn live(&self) -> Option<Arc<dyn Disk>>;

    /// The result of a power loss now that takes all it can; none if that does not open. Its futures are
    /// ready as in [`SimDisk::live`].
    fn survivor(&self) -> Option<Arc<dyn Disk>>;

    /// A number that changes with the content or the readability of [`SimDisk::live`] and
    /// [`SimDisk::survivor`]. None where a look is as cheap as this number.
    fn version(&self) -> Option<u64>;

    /// True if [`SimDisk::survivor`] takes only a moment.
    fn survivor_is_cheap(&self) -> bool;

    /// Its setbacks so far.
    fn setbacks(&self) -> Setbacks;
}

/// Counts of events after which a disk may hold less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Setbacks {
    /// Losses of power: unsynced data may be gone.
    pub power_losses: u64,
    /// Damage or exchange: synced data may be gone.
    pub losses: u64,
    /// True if the disk was damaged since it was new.
    pub damaged: bool,
}

impl Setbacks {
    /// Counts a possible loss of synced data, by damage or with the whole disk.
    fn lose(&mut self, damaged: bool) {
        self.losses += 1;
        self.damaged = damaged;
    }
}

/// A fault of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DiskFault {
    /// No fault. A call that failed before keeps failing until the disk is opened again.
    #[default]
    None,
    /// I/O errors: commits fail, and an opened disk stays unusable.
    Io,
    /// No space left: commits fail.
    Full,
    /// Less free space than any floor, while commits still succeed.
    LowSpace,
    /// Each sync takes this many ms of virtual time. A power loss meanwhile may take the data being synced.
    SlowMs(u64),
}

/// Kind of the hosts' disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DiskKind {
    /// A map in memory: fast.
    #[serde(rename = "memory")]
    Memory,
    /// RocksDB on files in memory, the storage of the product.
    #[serde(rename = "rocksdb")]
    Rocks,
}

impl DiskKind {
    /// All kinds.
    pub const ALL: [DiskKind; 2] = [DiskKind::Memory, DiskKind::Rocks];

    /// An empty disk. Its own random behaviour is drawn from `seed`.
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
