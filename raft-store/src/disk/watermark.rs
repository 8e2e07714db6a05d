//! The point up to which the database was synced, recorded outside its write-ahead log.
//!
//! A log cut at the end of a record looks like one that ended there. The database opens, and the
//! acknowledged writes after the cut are lost silently. So after every sync the database's sequence number
//! goes into a small file, and a database that opens below it is refused. The file also holds the end of
//! the manifest. A manifest that lost its end loses flushes, and later commits may hide that the sequence
//! number went back.
//!
//! The file is written after the sync, and is itself synced only from time to time. It may be behind the
//! disk but never ahead, so it never refuses an intact database. It is exact after a process is killed.
//! After a power loss it may be [`SYNC_EVERY`] old, unless the system wrote back a newer one. Two slots are
//! written in turn, so a torn write leaves the other one. Builds that did not know the manifest read these
//! files, and this build reads theirs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, BufMut};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use tokio::time::Instant;

use super::DiskError;
use super::manifest::{DATABASE_FILE, DatabaseFiles, Directory, Manifest, ManifestEnd};
use super::wal;

const FILE: &str = "WATERMARK";
const MAGIC: u64 = u64::from_be_bytes(*b"rwmark01");
/// One sector each, so that no write touches both.
const SLOT_BYTES: usize = 512;
/// Magic, sequence number, and a checksum of both.
const SEQUENCE_BYTES: usize = 20;
/// Followed by the manifest's number and length, and a checksum of everything.
const MARK_BYTES: usize = SEQUENCE_BYTES + 20;

/// Maximum age of the durable mark while the database is written to.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// The file of a mark.
pub trait MarkFile: Send {
    /// Reads the whole file.
    fn read(&mut self) -> io::Result<Vec<u8>>;
    /// Writes `bytes` at an offset, and extends the file if needed.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written survive a power loss.
    fn sync(&mut self) -> io::Result<()>;
}

impl MarkFile for File {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        self.seek(SeekFrom::Start(0))?;
        self.read_to_end(&mut text)?;
        Ok(text)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.seek(SeekFrom::Start(at))?;
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The mark of one database.
pub(super) struct Watermark {
    file: Box<dyn MarkFile>,
    sequence: u64,
    manifest: Manifest,
    next_slot: usize,
    synced_at: Instant,
}

impl Watermark {
    /// Reads the mark of the database at `path`, or creates it if there is no database yet.
    pub(super) fn open(path: &Path) -> Result<Watermark, DiskError> {
        let failed = |error| failed(path, &error);
        fs::create_dir_all(path).map_err(failed)?;
        let is_new = !path.join(DATABASE_FILE).try_exists().map_err(failed)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(is_new)
            .truncate(false)
            .open(path.join(FILE));
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(path, "is missing"));
            }
            file => file.map_err(failed)?,
        };
        let mark = Watermark::of(
            Box::new(file),
            Box::new(Directory(path.to_path_buf())),
            is_new,
            path,
        )?;
        if is_new {
            File::open(path)
                .and_then(|directory| directory.sync_all())
                .map_err(failed)?;
        }
        Ok(mark)
    }

    /// Reads the mark of the database at `path` from its file, or creates it if there is no database yet. A
    /// new mark is durable before the database exists, so a database without a mark has lost it. A database
    /// is refused if its manifest is not whole or is behind the mark, or if its logs are not whole.
    pub(super) fn of(
        file: Box<dyn MarkFile>,
        files: Box<dyn DatabaseFiles>,
        is_new: bool,
        path: &Path,
    ) -> Result<Watermark, DiskError> {
        let failed = |error| failed(path, &error);
        let mut mark = Watermark {
            file,
            sequence: 0,
            manifest: Manifest::new(files, path),
            next_slot: 0,
            synced_at: Instant::now(),
        };
        let text = mark.file.read().map_err(failed)?;
        match newest(&text) {
            // RocksDB would start an empty database beside the rest of the old one.
            Some((sequence, ..)) if is_new && sequence > 0 => {
                return Err(DiskError::Damaged(format!(
                    "database file {} is missing, though {sequence} changes were synced",
                    path.join(DATABASE_FILE).display()
                )));
            }
            _ if is_new => mark.create().map_err(failed)?,
            Some((sequence, end, slot)) => {
                mark.manifest.check(end)?;
                if !is_planted(PlantedBug::PointInTime) {
                    wal::check(mark.manifest.files(), path)?;
                }
                mark.sequence = sequence;
                mark.next_slot = 1 - slot;
            }
            None => return Err(damaged(path, "is damaged")),
        }
        Ok(mark)
    }

    fn create(&mut self) -> io::Result<()> {
        self.write()?;
        self.write()?;
        self.sync()
    }

    /// Refuses a database that ends at `sequence` although more was synced.
    pub(super) fn check(&self, sequence: u64) -> Result<(), DiskError> {
        if sequence >= self.sequence || is_planted(PlantedBug::PointInTime) {
            return Ok(());
        }
        Err(DiskError::Damaged(format!(
            "write-ahead log was cut: change {} was synced, and the database ends at {sequence}",
            self.sequence
        )))
    }

    /// Records the manifest of a database that was just opened.
    pub(super) fn opened(&mut self) -> Result<(), DiskError> {
        self.manifest.reopen()?;
        let written = self.write().and_then(|()| self.sync());
        written
            .map_err(|error| DiskError::Failed(format!("watermark could not be written: {error}")))
    }

    /// Records the end of the manifest, after something other than a sync.
    pub(super) fn follow(&mut self) -> Result<(), DiskError> {
        self.advance(self.sequence)
    }

    /// Records that everything up to `sequence` is synced, and the end of the manifest.
    pub(super) fn advance(&mut self, sequence: u64) -> Result<(), DiskError> {
        let has_grown = self.manifest.has_grown()?;
        if sequence <= self.sequence && !has_grown {
            return Ok(());
        }
        self.sequence = self.sequence.max(sequence);
        let written = self.write().and_then(|()| {
            if self.synced_at.elapsed() >= SYNC_EVERY {
                self.sync()?;
            }
            Ok(())
        });
        written
            .map_err(|error| DiskError::Failed(format!("watermark could not be written: {error}")))
    }

    /// Makes the mark durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.synced_at = Instant::now();
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let end = self.manifest.end();
        let mut slot = Vec::with_capacity(SLOT_BYTES);
        slot.put_u64(MAGIC);
        slot.put_u64(self.sequence);
        slot.put_u32(crc32c::crc32c(&slot));
        slot.put_u64(end.number);
        slot.put_u64(end.bytes);
        slot.put_u32(crc32c::crc32c(&slot));
        slot.resize(SLOT_BYTES, 0);
        let at = (self.next_slot * SLOT_BYTES) as u64;
        self.file.write_at(at, &slot)?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }
}

/// The newest intact mark, and its slot.
fn newest(text: &[u8]) -> Option<(u64, ManifestEnd, usize)> {
    let slots = text.chunks(SLOT_BYTES).take(2).enumerate();
    let whole = slots.filter_map(|(number, slot)| {
        let (sequence, end) = read(slot)?;
        Some((sequence, end, number))
    });
    whole.max()
}

fn read(slot: &[u8]) -> Option<(u64, ManifestEnd)> {
    let mut fields = slot.get(..MARK_BYTES)?;
    let magic = fields.try_get_u64().ok()?;
    let sequence = fields.try_get_u64().ok()?;
    if magic != MAGIC || !is_whole(slot, SEQUENCE_BYTES) {
        return None;
    }
    fields.try_get_u32().ok()?;
    // Written by a build that did not know the manifest.
    if fields.iter().all(|byte| *byte == 0) {
        return Some((sequence, ManifestEnd::default()));
    }
    let end = ManifestEnd {
        number: fields.try_get_u64().ok()?,
        bytes: fields.try_get_u64().ok()?,
    };
    is_whole(slot, MARK_BYTES).then_some((sequence, end))
}

/// Returns true if the first `bytes` of a slot end in the checksum of the bytes before it.
fn is_whole(slot: &[u8], bytes: usize) -> bool {
    let covered = slot.get(..bytes - 4);
    let sum = slot.get(bytes - 4..bytes);
    let sum = sum.and_then(|mut sum| sum.try_get_u32().ok());
    covered.map(crc32c::crc32c) == sum
}

fn failed(path: &Path, error: &io::Error) -> DiskError {
    DiskError::Failed(format!("{}: {error}", path.join(FILE).display()))
}

fn damaged(path: &Path, what: &str) -> DiskError {
    DiskError::Damaged(format!(
        "watermark {} {what}: the last synced change is unknown",
        path.join(FILE).display()
    ))
}
