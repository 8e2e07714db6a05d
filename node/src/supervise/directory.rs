//! The seam to a node's data directory: its database, and the small files beside it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ropewalk_raft_store::Disk;
use ropewalk_raft_store::data_dir::{DataDir, DataDirError};
use ropewalk_raft_store::disk::rocks::RocksOptions;

use crate::config::Limits;

/// A data directory that this process alone uses. All changes are durable once their call returns.
pub trait DataDirectory: Send + Sync + fmt::Debug {
    /// Opens the database, which starts empty if there is none.
    ///
    /// # Errors
    /// [`DataDirError::Database`] if the database is damaged, is still open, or does not open.
    fn open_disk(&self) -> Result<Arc<dyn Disk>, DataDirError>;

    /// Cluster of the node as of its last start; `None` if it never joined one.
    fn cluster(&self) -> Result<Option<String>, DataDirError>;

    /// Stores the cluster of the node.
    fn remember_cluster(&self, cluster: &str) -> Result<(), DataDirError>;

    /// Reason that the database must be set aside, if it was found damaged.
    fn damage(&self) -> Result<Option<String>, DataDirError>;

    /// Marks the database as damaged: it must be set aside and not be run on again.
    ///
    /// # Errors
    /// [`DataDirError::Unlooked`] while an earlier database is set aside.
    fn note_damage(&self, why: &str) -> Result<(), DataDirError>;

    /// Sets the database that is marked as damaged aside, and returns its new path. The next one starts empty.
    ///
    /// # Errors
    /// [`DataDirError::Unlooked`] while an earlier database is set aside. Nothing is changed then.
    fn set_aside(&self) -> Result<PathBuf, DataDirError>;
}

/// A data directory on this machine, locked for as long as this lives.
#[derive(Debug)]
pub struct LocalDirectory {
    dir: DataDir,
    options: RocksOptions,
}

impl LocalDirectory {
    /// Creates the directory if it is missing, locks it, and checks that this build may use it.
    ///
    /// # Errors
    /// If another process uses the directory, or this build can't.
    pub fn open(path: &Path, limits: &Limits) -> Result<LocalDirectory, DataDirError> {
        Ok(LocalDirectory {
            dir: DataDir::open(path)?,
            options: RocksOptions {
                database_bytes: limits.database_bytes,
                ..RocksOptions::default()
            },
        })
    }
}

impl DataDirectory for LocalDirectory {
    fn open_disk(&self) -> Result<Arc<dyn Disk>, DataDirError> {
        Ok(Arc::new(self.dir.open_disk(self.options)?))
    }

    fn cluster(&self) -> Result<Option<String>, DataDirError> {
        self.dir.cluster()
    }

    fn remember_cluster(&self, cluster: &str) -> Result<(), DataDirError> {
        self.dir.remember_cluster(cluster)
    }

    fn damage(&self) -> Result<Option<String>, DataDirError> {
        self.dir.damage()
    }

    fn note_damage(&self, why: &str) -> Result<(), DataDirError> {
        self.dir.note_damage(why)
    }

    fn set_aside(&self) -> Result<PathBuf, DataDirError> {
        self.dir.set_aside()
    }
}
