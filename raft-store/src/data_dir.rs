//! The data directory: whose it is, which version wrote it, and that one process uses it at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::disk::DiskError;
use crate::disk::rocks::{RocksDisk, RocksOptions};

/// The layout this build writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

const FORMAT_FILE: &str = "FORMAT";
const UNFINISHED_FORMAT_FILE: &str = "FORMAT.new";
const LOCK_FILE: &str = "LOCK";
const DATABASE_DIR: &str = "db";
const MAGIC: &str = "ropewalk data directory, format ";

/// A data directory, locked for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("{path} is in use by another process; stop that one, or name another --data-dir")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Something else lives there.
    #[error("{path} is not empty and not a Ropewalk data directory; name an empty one")]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// A newer build wrote it.
    #[error(
        "{path} has format {found}, and this build reads up to {FORMAT_VERSION}; run the build that wrote it, or a newer one"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The version it holds.
        found: u32,
    },
    /// The file system refused.
    #[error("{path} can't be used: {source}")]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database in it is damaged or can't be opened.
    #[error(
        "the database in {path} can't be opened: {source}; nothing was changed. If it is damaged, move the directory away and start with an empty one: the node comes back as a new one and catches up from the others"
    )]
    Database {
        /// The directory.
        path: PathBuf,
        /// What the database said.
        source: DiskError,
    },
}

impl DataDir {
    /// Makes the directory if it is not there, locks it, and checks that this build may use it.
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

fn holds_something_else(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        // The first two are what a start that was cut short leaves, the last is the file system's.
        if name != LOCK_FILE && name != UNFINISHED_FORMAT_FILE && name != "lost+found" {
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

/// Whole or not at all: a crash must not leave a directory that looks foreign.
fn write_format(path: &Path, format: &Path) -> io::Result<()> {
    let temporary = path.join(UNFINISHED_FORMAT_FILE);
    let mut file = File::create(&temporary)?;
    writeln!(file, "{MAGIC}{FORMAT_VERSION}")?;
    file.sync_all()?;
    fs::rename(&temporary, format)?;
    File::open(path)?.sync_all()
}
