//! A host's storage as a map in memory.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use ropewalk_raft_store::disk::{CrashOutcome, MemoryDisk};
use ropewalk_raft_store::{Disk, DiskError};

use super::seam::{Fault, Seam};
use super::{DiskFault, Setbacks, SimDisk};

/// The storage of one host, as a map.
#[derive(Debug, Default)]
pub struct MemoryMachine {
    /// The disk that the present process writes to, or the next one opens.
    disk: Mutex<Arc<MemoryDisk>>,
    fault: Fault,
    setbacks: Mutex<Setbacks>,
}

impl MemoryMachine {
    /// Replaces the present disk with the one that the next process finds.
    fn replace(&self, next: impl FnOnce(&MemoryDisk) -> MemoryDisk) -> Arc<MemoryDisk> {
        let mut disk = self.disk.lock();
        *disk = Arc::new(next(&disk));
        set_failure(&disk, *self.fault.lock());
        disk.clone()
    }
}

impl SimDisk for MemoryMachine {
    fn open(&self) -> Result<Arc<dyn Disk>, DiskError> {
        let fault = self.fault.clone();
        if *fault.lock() == DiskFault::Io {
            return Err(io_error());
        }
        let disk = self.replace(MemoryDisk::reopened);
        Ok(Arc::new(Seam { disk, fault }))
    }

    fn power_loss(&self, random: &mut SmallRng) {
        self.setbacks.lock().power_losses += 1;
        self.replace(|disk| {
            let kept = random.random_range(0..=disk.unsynced_batches());
            disk.crash_image(kept)
        });
    }

    fn crash(&self) {
        self.replace(MemoryDisk::reopened);
    }

    fn wipe(&self) {
        self.setbacks.lock().lose(false);
        self.replace(|_| MemoryDisk::new());
    }

    fn copy(&self, _seed: u64) -> Arc<dyn SimDisk> {
        let disk = Arc::new(self.disk.lock().reopened());
        Arc::new(MemoryMachine {
            disk: Mutex::new(disk),
            ..MemoryMachine::default()
        })
    }

    fn set_fault(&self, fault: DiskFault) {
        *self.fault.lock() = fault;
        set_failure(&self.disk.lock(), fault);
    }

    fn fault(&self) -> DiskFault {
        *self.fault.lock()
    }

    fn live(&self) -> Option<Arc<dyn Disk>> {
        Some(self.disk.lock().clone())
    }

    fn survivor(&self) -> Option<Arc<dyn Disk>> {
        Some(Arc::new(CrashOutcome(self.disk.lock().clone())))
    }

    fn version(&self) -> Option<u64> {
        None
    }

    fn survivor_is_cheap(&self) -> bool {
        true
    }

    fn setbacks(&self) -> Setbacks {
        *self.setbacks.lock()
    }

    fn damage(&self, random: &mut SmallRng) -> Option<String> {
        self.setbacks.lock().lose(true);
        let disk = self.disk.lock();
        let stored = disk.durable();
        let mut stored: Vec<_> = stored.iter().filter(|(_, at)| !at.is_empty()).collect();
        if stored.is_empty() {
            return None;
        }
        let (key, value) = stored.swap_remove(random.random_range(0..stored.len()));
        let at = random.random_range(0..value.len());
        let mut hurt = value.to_vec();
        let what = if random.random_ratio(1, 8) {
            hurt.truncate(at);
            format!("cut to {at} bytes")
        } else {
            let bit = random.random_range(0..8);
            hurt[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        };
        disk.rot(key, Bytes::from(hurt));
        Some(format!("value of key {key:02x?}: {what}"))
    }

    fn image(&self) -> Vec<(Bytes, Bytes)> {
        self.disk.lock().durable().into_iter().collect()
    }
}

fn io_error() -> DiskError {
    DiskError::Failed("Input/output error".to_string())
}

fn set_failure(disk: &MemoryDisk, fault: DiskFault) {
    match fault {
        DiskFault::Io => disk.fail_next_commit(io_error()),
        DiskFault::Full => disk.fail_next_commit(DiskError::Full("no space left".to_string())),
        DiskFault::None | DiskFault::LowSpace | DiskFault::SlowMs(_) => disk.fail_no_commit(),
    }
}
