//! Checks that the database's manifest is whole before RocksDB reads it, and follows its end.
//!
//! The manifest lists the tables and blob files of the database. RocksDB treats a record that runs past the
//! end as one that a crash cut short, and continues without it. It does so even if a flipped bit made the
//! record longer, or if the file was cut. RocksDB then deletes the files that the record added, although
//! the log that they came from is long gone. If a flipped bit turns a record's type into that of a recycled
//! log, RocksDB reads the record forever. So each [record](super::records) is checked first, and the
//! [watermark](super::watermark) remembers where the manifest ended.
//!
//! A crash can leave little damage (`VersionSet::ProcessManifestWrites`). RocksDB only appends to a
//! manifest, and syncs it before anything relies on it. `CURRENT` names the manifest once its beginning is
//! synced. So only at the very end, after the mark, can an edit be cut short or replaced by zeros. RocksDB
//! opens such a manifest, so it passes here. RocksDB refuses a wrong checksum even there.
//!
//! The meaning of records must never come in here: RocksDB reads it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::DiskError;
use super::records::walk;

/// File that every RocksDB directory has from its creation on. It names the manifest.
pub(super) const DATABASE_FILE: &str = "CURRENT";

/// The files of a database, as far as the mark needs them.
pub trait DatabaseFiles: Send {
    /// The content of a file from an offset on.
    fn read(&self, name: &str, from: u64) -> io::Result<Vec<u8>>;
    /// The names of all files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Size of a file in bytes; `None` if it does not exist.
    fn size(&self, name: &str) -> io::Result<Option<u64>>;
    /// Makes the current content of a file, and the names in the directory, survive a power loss.
    fn sync(&self, name: &str) -> io::Result<()>;
}

/// Files in a directory.
#[derive(Debug)]
pub struct Directory(pub PathBuf);

impl DatabaseFiles for Directory {
    fn read(&self, name: &str, from: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        let mut file = File::open(self.0.join(name))?;
        file.seek(SeekFrom::Start(from))?;
        file.read_to_end(&mut content)?;
        Ok(content)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.0)?;
        let name = |entry: io::Result<fs::DirEntry>| {
            let name = entry?.file_name();
            Ok(name.to_string_lossy().into_owned())
        };
        entries.map(name).collect()
    }

    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        match fs::metadata(self.0.join(name)) {
            Ok(about) => Ok(Some(about.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        File::open(self.0.join(name))?.sync_data()?;
        File::open(&self.0)?.sync_all()
    }
}

/// Point up to which a manifest is durable and whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct ManifestEnd {
    /// Number in the manifest's name; 0 before there is a manifest. A new manifest has a higher number.
    pub number: u64,
    /// Offset at which an edit ends.
    pub bytes: u64,
}

/// The manifest of one database.
pub(super) struct Manifest {
    files: Box<dyn DatabaseFiles>,
    path: PathBuf,
    end: ManifestEnd,
    /// Length at the last check.
    seen_bytes: u64,
}

impl Manifest {
    pub(super) fn new(files: Box<dyn DatabaseFiles>, path: &Path) -> Manifest {
        Manifest {
            files,
            path: path.to_path_buf(),
            end: ManifestEnd::default(),
            seen_bytes: 0,
        }
    }

    /// Point up to which the manifest is known to be durable.
    pub(super) fn end(&self) -> ManifestEnd {
        self.end
    }

    /// Refuses a manifest that is not whole, or that lacks something durable up to `end`.
    pub(super) fn check(&self, end: ManifestEnd) -> Result<(), DiskError> {
        let number = self.current()?;
        if number < end.number {
            let what = format!(
                "names {}, and {} was synced",
                name(number),
                name(end.number)
            );
            return Err(self.damaged(DATABASE_FILE, &what));
        }
        let name = name(number);
        let content = match self.files.read(&name, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let what = format!("is missing, though {DATABASE_FILE} names it");
                return Err(self.damaged(&name, &what));
            }
            content => content.map_err(|error| self.failed(&name, &error))?,
        };
        let whole_bytes = walk(&content, 0).map_err(|bad| self.damaged(&name, &bad.told()))?;
        if number == end.number && whole_bytes < end.bytes {
            let what = format!(
                "was cut: {} bytes were synced, and no complete record begins at byte \
                 {whole_bytes}",
                end.bytes
            );
            return Err(self.damaged(&name, &what));
        }
        Ok(())
    }

    /// The files of the database.
    pub(super) fn files(&self) -> &dyn DatabaseFiles {
        &*self.files
    }

    /// Returns true if the manifest has grown, or if a new one has replaced it. New content is synced
    /// first, so the mark is never ahead of it: a background thread of the database may have just written
    /// it.
    pub(super) fn has_grown(&mut self) -> Result<bool, DiskError> {
        let name = name(self.end.number);
        let size = self.files.size(&name);
        match size.map_err(|error| self.failed(&name, &error))? {
            Some(bytes) if bytes == self.seen_bytes => Ok(false),
            Some(bytes) => self.take_up(self.end, bytes),
            // RocksDB deletes the manifest once the next one exists.
            None => self.reopen(),
        }
    }

    /// Like [`Manifest::has_grown`], if a new manifest may exist beside the old one: each opening begins
    /// one.
    pub(super) fn reopen(&mut self) -> Result<bool, DiskError> {
        let begin = ManifestEnd {
            number: self.current()?,
            bytes: 0,
        };
        let name = name(begin.number);
        let size = self.files.size(&name);
        match size.map_err(|error| self.failed(&name, &error))? {
            Some(bytes) => self.take_up(begin, bytes),
            None => Err(self.failed(&name, &io::ErrorKind::NotFound.into())),
        }
    }

    fn take_up(&mut self, known: ManifestEnd, seen_bytes: u64) -> Result<bool, DiskError> {
        let name = name(known.number);
        let failed = |error| self.failed(&name, &error);
        let added = self.files.read(&name, known.bytes).map_err(failed)?;
        let bytes = match walk(&added, known.bytes) {
            Ok(bytes) => bytes,
            Err(bad) => {
                // RocksDB reads the manifest only at the next start, which will refuse it.
                tracing::error!(manifest = name, "{}", bad.told());
                known.bytes
            }
        };
        self.files.sync(&name).map_err(failed)?;
        let end = ManifestEnd {
            number: known.number,
            bytes,
        };
        let has_grown = end != self.end;
        self.end = end;
        self.seen_bytes = seen_bytes;
        Ok(has_grown)
    }

    /// Number of the database's current manifest.
    fn current(&self) -> Result<u64, DiskError> {
        let content = self.files.read(DATABASE_FILE, 0);
        let content = content.map_err(|error| self.failed(DATABASE_FILE, &error))?;
        let text = std::str::from_utf8(&content).unwrap_or_default();
        let digits = text
            .strip_prefix("MANIFEST-")
            .and_then(|text| text.strip_suffix('\n'));
        let number = digits.and_then(|digits| digits.parse().ok());
        number.ok_or_else(|| self.damaged(DATABASE_FILE, "does not name a manifest"))
    }

    fn failed(&self, name: &str, error: &io::Error) -> DiskError {
        DiskError::Failed(format!("{}: {error}", self.path.join(name).display()))
    }

    fn damaged(&self, name: &str, what: &str) -> DiskError {
        DiskError::Damaged(format!(
            "database file {} {what}: tables may be missing; the node must get its records from \
             the other nodes",
            self.path.join(name).display()
        ))
    }
}

fn name(number: u64) -> String {
    format!("MANIFEST-{number:06}")
}

#[cfg(test)]
mod tests;
