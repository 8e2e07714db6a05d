//! Whether the database's manifest is whole, and where it ends: looked at before RocksDB reads it.
//!
//! The manifest says which tables and blob files are the database. RocksDB takes a record that runs
//! past its end for one that a crash cut short, and goes on without it: also where a flipped bit
//! made the record longer, or something cut the file. What the record told of is then deleted, and
//! the log it came from is long gone. And where a bit in a record's type makes it one of a recycled
//! log, RocksDB reads it for ever. So each record is checked here first, and the
//! [watermark](super::watermark) remembers where the manifest ended.
//!
//! The format is RocksDB's `db/log_format.h`, read as `db/log_reader.cc` does: blocks of 32 KiB; in
//! them records of a masked CRC-32C of all that follows the length, a length of two bytes, a type,
//! and the content; zeros where no further head fits into a block. What does not fit into one goes
//! into several records. Of the types a manifest has four; the others are for write-ahead logs.
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

/// What RocksDB has in each of its directories, from its creation on: it names the manifest.
pub(super) const DATABASE_FILE: &str = "CURRENT";

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;

/// The files of a database, as far as the mark must see them.
pub trait DatabaseFiles: Send {
    /// The content of a file from an offset on.
    fn read(&self, name: &str, from: u64) -> io::Result<Vec<u8>>;
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

/// Where a manifest is not as RocksDB writes it.
#[derive(Debug, PartialEq, Eq)]
struct Bad {
    at: u64,
    what: &'static str,
}

impl Bad {
    fn told(&self) -> String {
        format!("is damaged at byte {}: {}", self.at, self.what)
    }
}

/// Of an edit that takes several records, which this one is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Full,
    First,
    Middle,
    Last,
}

/// What stands somewhere in a manifest.
enum Found {
    Record {
        part: Part,
        bytes: usize,
    },
    /// Zeros up to the next block.
    Filler {
        bytes: usize,
    },
    /// Nothing further that was written to its end.
    End,
}

/// Checks what a manifest holds from `from` on, where an edit begins, and says where the last one
/// ends that is whole.
fn walk(content: &[u8], from: u64) -> Result<u64, Bad> {
    let (mut rest, mut at) = (content, from);
    let mut whole_bytes = from;
    let mut in_edit = false;
    loop {
        let bad = |what| Bad { at, what };
        let in_block = BLOCK_BYTES - (at % BLOCK_BYTES as u64) as usize;
        let bytes = match next(rest, in_block).map_err(bad)? {
            Found::Record { part, bytes } => {
                if in_edit != matches!(part, Part::Middle | Part::Last) {
                    return Err(bad("parts of an edit are missing"));
                }
                in_edit = matches!(part, Part::First | Part::Middle);
                if !in_edit {
                    whole_bytes = at + bytes as u64;
                }
                bytes
            }
            Found::Filler { bytes } => bytes,
            Found::End => return Ok(whole_bytes),
        };
        at += bytes as u64;
        rest = rest.get(bytes..).unwrap_or_default();
    }
}

/// What stands at the beginning of `rest`, where `in_block` bytes are left of a block.
fn next(rest: &[u8], in_block: usize) -> Result<Found, &'static str> {
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    if in_block < HEADER_BYTES {
        let filler = rest.get(..in_block);
        return match filler.unwrap_or(rest) {
            bytes if !is_zero(bytes) => Err("there is something where nothing fits"),
            _ if filler.is_none() => Ok(Found::End),
            _ => Ok(Found::Filler { bytes: in_block }),
        };
    }
    let Some(&[sum0, sum1, sum2, sum3, low, high, kind]) = rest.first_chunk() else {
        return Ok(Found::End);
    };
    let length = usize::from(u16::from_le_bytes([low, high]));
    if kind == 0 && length == 0 {
        // A file system may show a file's new length before the bytes.
        return match is_zero(rest) {
            true => Ok(Found::End),
            false => Err("there is a hole in it"),
        };
    }
    let part = match kind {
        1 => Part::Full,
        2 => Part::First,
        3 => Part::Middle,
        4 => Part::Last,
        // Also where it is cut short: RocksDB would look at the type first.
        _ => return Err("a record has a type that no manifest has"),
    };
    let bytes = HEADER_BYTES + length;
    if bytes > in_block {
        return Err("a record is longer than its block");
    }
    // The checksum begins at the type.
    let Some(covered) = rest.get(HEADER_BYTES - 1..bytes) else {
        return Ok(Found::End);
    };
    let sum = u32::from_le_bytes([sum0, sum1, sum2, sum3]);
    if masked(crc32c::crc32c(covered)) != sum {
        return Err("a record does not match its checksum");
    }
    Ok(Found::Record { part, bytes })
}

/// As RocksDB's `util/crc32c.h` writes a checksum that lies among what others may be taken over.
fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests;
