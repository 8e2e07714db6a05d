//! Whether the database's manifest is whole, and where it ends: looked at before RocksDB reads it.
//!
//! The manifest says which tables and blob files are the database. RocksDB takes a record that runs
//! past its end for one that a crash cut short, and goes on without it: also where a flipped bit
//! made the record longer, or something cut the file. What the record told of is then deleted, and
//! the log it came from is long gone. And where a bit in a record's type makes it one of a recycled
//! log, RocksDB reads it for ever. So each [record](super::records) is checked first, and the
//! [watermark](super::watermark) remembers where the manifest ended.
//!
//! What a crash may leave (`VersionSet::ProcessManifestWrites`): a manifest is only appended to, and
//! synced before anything rests on it; `CURRENT` names it when its beginning is synced. So at its
//! very end, and behind what the mark knows, an edit may be cut short, or there may be zeros instead
//! of it. RocksDB opens that, and so it passes here; a wrong checksum it refuses even there.
//!
//! What records say must never come in here: that is RocksDB's to read.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::DiskError;
use super::records::walk;

/// What RocksDB has in each of its directories, from its creation on: it names the manifest.
pub(super) const DATABASE_FILE: &str = "CURRENT";

/// The files of a database, as far as the mark must see them.
pub trait DatabaseFiles: Send {
    /// The content of a file from an offset on.
    fn read(&self, name: &str, from: u64) -> io::Result<Vec<u8>>;
    /// The names of all files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// How many bytes a file has; none if it is not there.
    fn size(&self, name: &str) -> io::Result<Option<u64>>;
    /// Makes what can be read of a file, and the names in the directory, survive a power loss.
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

/// Up to where a manifest was durable and whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct ManifestEnd {
    /// In its name; 0 before there is one. A new manifest has a higher one.
    pub number: u64,
    /// Where an edit ends.
    pub bytes: u64,
}

/// The manifest of one database.
pub(super) struct Manifest {
    files: Box<dyn DatabaseFiles>,
    path: PathBuf,
    end: ManifestEnd,
    /// How long it was when it was looked at last.
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

    /// Up to where it is known to be durable.
    pub(super) fn end(&self) -> ManifestEnd {
        self.end
    }

    /// Refuses a manifest that is not whole, or not all that was durable up to `end`.
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
                "was cut: {} bytes were synced, and byte {whole_bytes} begins nothing whole",
                end.bytes
            );
            return Err(self.damaged(&name, &what));
        }
        Ok(())
    }

    /// The files of its database.
    pub(super) fn files(&self) -> &dyn DatabaseFiles {
        &*self.files
    }

    /// Looks whether it got longer, or a new one took its place, and says so. What is new is made
    /// durable first, so that the mark is never ahead of it: a background thread of the database may
    /// have written it just now.
    pub(super) fn has_grown(&mut self) -> Result<bool, DiskError> {
        let name = name(self.end.number);
        let size = self.files.size(&name);
        match size.map_err(|error| self.failed(&name, &error))? {
            Some(bytes) if bytes == self.seen_bytes => Ok(false),
            Some(bytes) => self.take_up(self.end, bytes),
            // It is deleted when the next one is there.
            None => self.reopen(),
        }
    }

    /// As [`Manifest::has_grown`], when there may be a new one beside it: each opening begins one.
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
                // RocksDB doesn't read it before the next start, which will refuse it.
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

    /// The number of the manifest that the database has now.
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
            "{} {what}: the database may lack tables; the node needs its records from the others",
            self.path.join(name).display()
        ))
    }
}

fn name(number: u64) -> String {
    format!("MANIFEST-{number:06}")
}

#[cfg(test)]
mod tests;
