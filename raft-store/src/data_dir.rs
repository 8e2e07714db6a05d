//! The data directory: its cluster, its format version, and its lock, which admits one process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::disk::DiskError;
use crate::disk::rocks::{RocksDisk, RocksOptions};

/// Layout that this build writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

const FORMAT_FILE: &str = "FORMAT";
const UNFINISHED_FILE: &str = "FORMAT.new";
const LOCK_FILE: &str = "LOCK";
const DATABASE_DIR: &str = "db";
/// Cluster of this directory's node. The file is beside the database because it outlives the database.
const CLUSTER_FILE: &str = "CLUSTER";
/// Marks the database as damaged and holds the reason. A marked database must be set aside.
const DAMAGED_FILE: &str = "DAMAGED";
/// Directory that keeps a damaged database.
const QUARANTINE_DIR: &str = "quarantine";
const MAGIC: &str = "ropewalk data directory, format ";

/// A data directory, locked for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Reason that a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error(
        "data directory {path} is in use by another process; stop that process, or name another \
         --data-dir"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds something else.
    #[error(
        "data directory {path} is not empty and was not created by Ropewalk; name an empty one"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// A newer build wrote it.
    #[error(
        "data directory {path} has format {found}, and this build reads up to {FORMAT_VERSION}; \
         run the build that wrote it, or a newer one"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format version.
        found: u32,
    },
    /// The file system returned an error.
    #[error("data directory {path} cannot be used: {source}")]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
    /// A database that was set aside earlier is still there.
    #[error(
        "database in {path} is damaged, and {kept} still holds an earlier damaged one: nothing \
         was changed. Find the cause of the damage, move or delete {kept}, and start the node \
         again"
    )]
    Unlooked {
        /// The directory.
        path: PathBuf,
        /// Path of the database that was set aside earlier.
        kept: PathBuf,
    },
    /// The database in it is damaged or can't be opened.
    #[error(
        "database in {path} cannot be opened: {source}; it was not set aside. If it is damaged, \
         move the directory away and start with an empty one: the node returns as a new one and \
         catches up from the other nodes"
    )]
    Database {
        /// The directory.
        path: PathBuf,
        /// Error of the database.
        source: DiskError,
    },
}

impl DataDir {
    /// Returns true if a node keeps its data in `path`, of this build or another.
    pub fn is_one(path: &Path) -> bool {
        path.join(FORMAT_FILE).exists()
    }

    /// Creates the directory if it is missing, locks it, and checks that this build may use it.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let io_error = |source| DataDirError::Io {
            path: path.to_path_buf(),
            source,
        };
        fs::create_dir_all(path).map_err(io_error)?;
        let format = path.join(FORMAT_FILE);
        if !format.exists() && holds_something_else(path).map_err(io_error)? {
            return Err(DataDirError::Foreign {
                path: path.to_path_buf(),
            });
        }
        let lock = lock(path)?;
        if format.exists() {
            check_format(path, &fs::read_to_string(&format).map_err(io_error)?)?;
        } else {
            write_format(path, &format).map_err(io_error)?;
        }
        Ok(DataDir {
            path: path.to_path_buf(),
            _lock: lock,
        })
    }

    /// Opens the database in it.
    pub fn open_disk(&self, options: RocksOptions) -> Result<RocksDisk, DataDirError> {
        RocksDisk::open(&self.path.join(DATABASE_DIR), options).map_err(|source| {
            DataDirError::Database {
                path: self.path.clone(),
                source,
            }
        })
    }
}

impl DataDir {
    /// Cluster of the node as of its last start; `None` if it never joined one.
    pub fn cluster(&self) -> Result<Option<String>, DataDirError> {
        self.read(CLUSTER_FILE)
    }

    /// Stores the cluster of the node; durable once this returns.
    pub fn remember_cluster(&self, cluster: &str) -> Result<(), DataDirError> {
        if self.cluster()?.as_deref() == Some(cluster) {
            return Ok(());
        }
        self.write(CLUSTER_FILE, cluster)
    }

    /// Reason that the database must be set aside, if it was found damaged.
    pub fn damage(&self) -> Result<Option<String>, DataDirError> {
        self.read(DAMAGED_FILE)
    }

    /// Marks the database as damaged: it must be set aside and not opened again. Durable once this returns.
    pub fn note_damage(&self, why: &str) -> Result<(), DataDirError> {
        self.check_room()?;
        self.write(DAMAGED_FILE, why)
    }

    /// Sets the damaged database aside and returns its new path. The next database opened here starts
    /// empty. No process may have the database open. A database set aside is never deleted here, and there
    /// is room for one: while an earlier one remains, this refuses and changes nothing.
    ///
    /// The steps, each of which finds the state that the steps before it leave:
    ///
    /// 1. Check that `DAMAGED` is there, and that no earlier database is kept.
    /// 2. Rename `db` to `quarantine`.
    /// 3. Sync the data directory.
    /// 4. Rename `DAMAGED` to `quarantine/DAMAGED`.
    /// 5. Sync `quarantine`, so that the reason is durable in its new place.
    /// 6. Sync the data directory, so that the mark is durably gone.
    ///
    /// After a crash at any point up to step 6, the next start finds `DAMAGED` and calls this again, or finds
    /// all of it done. A power loss between the last two steps may leave the reason in both places: the
    /// second call removes the mark.
    pub fn set_aside(&self) -> Result<PathBuf, DataDirError> {
        let (database, kept) = (self.path.join(DATABASE_DIR), self.path.join(QUARANTINE_DIR));
        let note = self.path.join(DAMAGED_FILE);
        let Some(why) = self.damage()? else {
            self.check_room()?;
            return Err(self.io(&note, io::ErrorKind::NotFound.into()));
        };
        if self.exists(&database)? {
            self.check_room()?;
            fs::rename(&database, &kept).map_err(|source| self.io(&database, source))?;
        } else {
            self.check_unfinished(&kept, &why)?;
        }
        self.sync(&self.path)?;
        let kept_note = kept.join(DAMAGED_FILE);
        fs::rename(&note, &kept_note).map_err(|source| self.io(&note, source))?;
        self.sync(&kept)?;
        // Two names of one file stay both: renaming one to the other does nothing.
        if self.exists(&note)? {
            fs::remove_file(&note).map_err(|source| self.io(&note, source))?;
        }
        self.sync(&self.path)?;
        Ok(kept)
    }

    /// Refuses if `kept`, found beside no database, was set aside for another reason than `why`. Where nothing
    /// is kept, the database was removed by hand: creates the directory that keeps the reason.
    fn check_unfinished(&self, kept: &Path, why: &str) -> Result<(), DataDirError> {
        if !self.exists(kept)? {
            return fs::create_dir(kept).map_err(|source| self.io(kept, source));
        }
        match self.read(&format!("{QUARANTINE_DIR}/{DAMAGED_FILE}"))? {
            Some(earlier) if earlier != why => self.check_room(),
            _ => Ok(()),
        }
    }

    /// Refuses if an earlier database is still set aside.
    fn check_room(&self) -> Result<(), DataDirError> {
        let kept = self.path.join(QUARANTINE_DIR);
        if self.exists(&kept)? {
            let path = self.path.clone();
            return Err(DataDirError::Unlooked { path, kept });
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> Result<bool, DataDirError> {
        path.try_exists().map_err(|source| self.io(path, source))
    }

    fn read(&self, name: &str) -> Result<Option<String>, DataDirError> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.io(&path, source)),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), DataDirError> {
        let path = self.path.join(name);
        let written = write_whole(&self.path, &path, text);
        written.map_err(|source| self.io(&path, source))
    }

    /// Makes the names in a directory durable.
    fn sync(&self, directory: &Path) -> Result<(), DataDirError> {
        let synced = File::open(directory).and_then(|dir| dir.sync_all());
        synced.map_err(|source| self.io(directory, source))
    }

    fn io(&self, path: &Path, source: io::Error) -> DataDirError {
        let path = path.to_path_buf();
        DataDirError::Io { path, source }
    }
}

fn holds_something_else(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        // An interrupted start leaves the first two; the last belongs to the file system.
        if name != LOCK_FILE && name != UNFINISHED_FILE && name != "lost+found" {
            return Ok(true);
        }
    }
    Ok(false)
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let io_error = |source| DataDirError::Io {
        path: path.join(LOCK_FILE),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join(LOCK_FILE))
        .map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse {
            path: path.to_path_buf(),
        }),
        Err(TryLockError::Error(source)) => Err(io_error(source)),
    }
}

fn check_format(path: &Path, text: &str) -> Result<(), DataDirError> {
    let version = text
        .strip_prefix(MAGIC)
        .and_then(|rest| rest.trim().parse::<u32>().ok());
    match version {
        Some(found) if found > FORMAT_VERSION => Err(DataDirError::Newer {
            path: path.to_path_buf(),
            found,
        }),
        Some(_) => Ok(()),
        None => Err(DataDirError::Foreign {
            path: path.to_path_buf(),
        }),
    }
}

/// Writes the format file whole or not at all: a crash must not leave a directory that looks foreign.
fn write_format(path: &Path, format: &Path) -> io::Result<()> {
    write_whole(path, format, &format!("{MAGIC}{FORMAT_VERSION}"))
}

/// Writes a file in the directory `path`. A crash leaves either the old or the new content, whole.
fn write_whole(path: &Path, name: &Path, text: &str) -> io::Result<()> {
    let temporary = path.join(UNFINISHED_FILE);
    let mut file = File::create(&temporary)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&temporary, name)?;
    File::open(path)?.sync_all()
}
