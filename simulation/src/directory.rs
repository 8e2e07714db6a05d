//! Data directories of simulated hosts: a disk, and the small files that the product keeps beside its database.
//!
//! A directory outlives the processes that use it, as its disk does. All its files are durable once a call
//! returns, as on a real file system, so neither a crash nor a power loss takes them. `tests/runs/directory.rs`
//! holds the product's directory and this one to the same contract.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};
use ropewalk_node::supervise::DataDirectory;
use ropewalk_raft_store::data_dir::DataDirError;
use ropewalk_raft_store::{Disk, DiskError};

use crate::disk::{DiskFault, SimDisk};
use crate::process::DiskCalls;

/// Names of the small files, for errors.
const CLUSTER: &str = "CLUSTER";
const DAMAGED: &str = "DAMAGED";
const QUARANTINE: &str = "quarantine";

/// A node's data directory.
#[derive(Debug)]
pub struct Directory {
    name: String,
    disk: Arc<dyn SimDisk>,
    beside: Mutex<Beside>,
    set_aside: Mutex<Vec<SetAside>>,
}

/// A database that a node set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Host that its directory was made on.
    pub host: String,
    /// Reason of the node.
    pub why: String,
    /// True if a fault had damaged the disk before.
    pub was_damaged: bool,
}

/// The small files beside the database.
#[derive(Debug, Clone, Default)]
struct Beside {
    /// Cluster of the node.
    cluster: Option<String>,
    /// Reason that the database must be set aside.
    damage: Option<String>,
    /// Reason that an earlier database was set aside, until an operator deletes that one.
    kept: Option<String>,
}

impl Directory {
    /// A directory with nothing but this disk, made on the host of this name.
    pub fn new(name: &str, disk: Arc<dyn SimDisk>) -> Arc<Directory> {
        Arc::new(Directory {
            name: name.to_owned(),
            disk,
            beside: Mutex::default(),
            set_aside: Mutex::default(),
        })
    }

    /// Host it was made on: its name for as long as the simulation lasts.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The disk that holds its database.
    pub fn disk(&self) -> &Arc<dyn SimDisk> {
        &self.disk
    }

    /// A second directory with the present content of this one. The random behaviour of its disk is drawn from
    /// `seed`.
    pub fn copy(&self, name: &str, seed: u64) -> Arc<Directory> {
        Arc::new(Directory {
            name: name.to_owned(),
            disk: self.disk.copy(seed),
            beside: Mutex::new(self.beside.lock().clone()),
            set_aside: Mutex::default(),
        })
    }

    /// Replaces all its content with nothing, as an exchange of the disk does.
    pub fn wipe(&self) {
        self.disk.wipe();
        *self.beside.lock() = Beside::default();
    }

    /// Reason that a database was set aside, while that one is there.
    pub fn kept(&self) -> Option<String> {
        self.beside.lock().kept.clone()
    }

    /// All databases that were set aside in it, in order, for judges.
    pub fn all_set_aside(&self) -> Vec<SetAside> {
        self.set_aside.lock().clone()
    }

    /// Deletes the database that was set aside, as an operator does.
    pub fn delete_kept(&self) {
        self.beside.lock().kept.take();
    }

    /// The directory as a process sees it. `calls` counts the calls that fail.
    pub fn mount(self: &Arc<Directory>, calls: Arc<DiskCalls>) -> Mounted {
        Mounted {
            directory: self.clone(),
            calls,
            opened: Mutex::default(),
        }
    }
}

/// A data directory in use by a process.
#[derive(Debug)]
pub struct Mounted {
    directory: Arc<Directory>,
    calls: Arc<DiskCalls>,
    /// Database that the process opened last. It does not open again while a task of the process holds it.
    opened: Mutex<Option<Weak<dyn Disk>>>,
}

impl Mounted {
    fn path(&self) -> PathBuf {
        PathBuf::from(&self.directory.name)
    }

    fn refused(&self, source: DiskError) -> DataDirError {
        DataDirError::Database {
            path: self.path(),
            source,
        }
    }

    /// Error of a fault of the disk.
    fn failed(&self, file: &str, source: io::Error) -> DataDirError {
        self.calls.failed();
        self.io_error(file, source)
    }

    fn io_error(&self, file: &str, source: io::Error) -> DataDirError {
        DataDirError::Io {
            path: self.path().join(file),
            source,
        }
    }

    /// The small files, to read or rename this one.
    fn read(&self, file: &str) -> Result<MutexGuard<'_, Beside>, DataDirError> {
        match self.directory.disk.fault() {
            DiskFault::Io => Err(self.failed(file, io::Error::other("Input/output error"))),
            _ => Ok(self.directory.beside.lock()),
        }
    }

    /// The same to write this one, which takes space.
    fn write(&self, file: &str) -> Result<MutexGuard<'_, Beside>, DataDirError> {
        match self.directory.disk.fault() {
            DiskFault::Full => Err(self.failed(file, io::ErrorKind::StorageFull.into())),
            _ => self.read(file),
        }
    }

    /// Fails while an earlier database is set aside.
    fn check_room(&self) -> Result<(), DataDirError> {
        match self.read(QUARANTINE)?.kept {
            Some(_) => Err(DataDirError::Unlooked {
                path: self.path(),
                kept: self.path().join(QUARANTINE),
            }),
            None => Ok(()),
        }
    }
}

impl DataDirectory for Mounted {
    fn open_disk(&self) -> Result<Arc<dyn Disk>, DataDirError> {
        let mut opened = self.opened.lock();
        if opened.as_ref().is_some_and(|disk| disk.strong_count() > 0) {
            let locked = "this process still has it open".to_owned();
            return Err(self.refused(DiskError::Failed(locked)));
        }
        let disk = self.directory.disk.open().map_err(|source| {
            self.calls.failed();
            self.refused(source)
        })?;
        *opened = Some(Arc::downgrade(&disk));
        Ok(disk)
    }

    fn cluster(&self) -> Result<Option<String>, DataDirError> {
        Ok(self.read(CLUSTER)?.cluster.clone())
    }

    fn remember_cluster(&self, cluster: &str) -> Result<(), DataDirError> {
        if self.cluster()?.as_deref() != Some(cluster) {
            self.write(CLUSTER)?.cluster = Some(cluster.to_owned());
        }
        Ok(())
    }

    fn damage(&self) -> Result<Option<String>, DataDirError> {
        Ok(self.read(DAMAGED)?.damage.clone())
    }

    fn note_damage(&self, why: &str) -> Result<(), DataDirError> {
        self.check_room()?;
        self.write(DAMAGED)?.damage = Some(why.to_owned());
        Ok(())
    }

    /// Nobody reads the database that is set aside, so only the reason is kept.
    fn set_aside(&self) -> Result<PathBuf, DataDirError> {
        self.check_room()?;
        let mut beside = self.read(DAMAGED)?;
        let Some(why) = beside.damage.take() else {
            // A mistake of the caller, and no effect of a fault of the disk.
            return Err(self.io_error(DAMAGED, io::ErrorKind::NotFound.into()));
        };
        self.directory.set_aside.lock().push(SetAside {
            host: self.directory.name.clone(),
            why: why.clone(),
            was_damaged: self.directory.disk.setbacks().damaged,
        });
        self.directory.disk.wipe();
        beside.kept = Some(why);
        Ok(self.path().join(QUARANTINE))
    }
}
