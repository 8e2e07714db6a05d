//! How far the database was synced, written down outside its write-ahead log.
//!
//! A log cut at the end of a record looks like one that ended there: the database opens, and what
//! was acknowledged behind the cut is gone without a word. So after every sync the database's
//! sequence number goes into a small file of its own, and a database that opens below it is
//! refused. Beside it stands how far the manifest went: one that lost its end loses flushes, and what
//! was committed since may hide that the numbers went back.
//!
//! The file is written after the sync and itself synced only now and then: it may be behind what
//! is on the disk, never ahead, so it refuses nothing that is whole. A process that is killed leaves
//! it exact; after a power loss it is as old as [`SYNC_EVERY`], or what the system wrote back since.
//! Two slots are written in turn, so that one torn write leaves the other. Builds that knew no
//! manifest read them, and theirs are read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, BufMut};
use ropewalk_proto::mistake::{Mistake, made};
use tokio::time::Instant;

use super::DiskError;
use super::manifest::{DATABASE_FILE, DatabaseFiles, Directory, Manifest, ManifestEnd};
use super::wal;

const FILE: &str = "WATERMARK";
const MAGIC: u64 = u64::from_be_bytes(*b"rwmark01");
/// A sector each, so that no write touches both.
const SLOT_BYTES: usize = 512;
/// Magic, sequence number, and a checksum of both.
const SEQUENCE_BYTES: usize = 20;
/// Behind it the manifest's number and length, and a checksum of everything.
const MARK_BYTES: usize = SEQUENCE_BYTES + 20;

/// How old the durable mark may get while the database is written to.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// Where a mark is kept.
pub trait MarkFile: Send {
    /// All of it.
    fn read(&mut self) -> io::Result<Vec<u8>>;
    /// Writes `bytes` at an offset, beyond the end if need be.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written survive a power loss.
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
    /// Reads the mark of the database at `path`, or makes it if there is no database yet.
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

    /// Reads the mark of the database at `path` from its file, or makes it if there is no database
    /// yet. Durable before the database is there: a database without a mark has lost it. One whose
    /// manifest is not whole, or not what the mark says, or whose logs are not whole, is refused.
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
            // RocksDB would begin anew beside what is left of the old database.
            Some((sequence, ..)) if is_new && sequence > 0 => {
                return Err(DiskError::Damaged(format!(
                    "{} is missing, though {sequence} changes were synced",
                    path.join(DATABASE_FILE).display()
                )));
            }
            _ if is_new => mark.create().map_err(failed)?,
            Some((sequence, end, slot)) => {
                mark.manifest.check(end)?;
                if !made(Mistake::PointInTime) {
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

    /// Refuses a database that ends at `sequence` though more was synced.
    pub(super) fn check(&self, sequence: u64) -> Result<(), DiskError> {
        if sequence >= self.sequence || made(Mistake::PointInTime) {
            return Ok(());
        }
        Err(DiskError::Damaged(format!(
            "the write-ahead log was cut: change {} was synced, and the database ends at {sequence}",
            self.sequence
        )))
    }

    /// Notes which manifest a database has that was just opened.
    pub(super) fn opened(&mut self) -> Result<(), DiskError> {
        self.manifest.reopen()?;
        let written = self.write().and_then(|()| self.sync());
        written.map_err(|error| DiskError::Failed(format!("the watermark: {error}")))
    }

    /// Notes how far the manifest goes, after something else than a sync.
    pub(super) fn follow(&mut self) -> Result<(), DiskError> {
        self.advance(self.sequence)
    }

    /// Notes that everything up to `sequence` is synced, and how far the manifest goes.
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
        written.map_err(|error| DiskError::Failed(format!("the watermark: {error}")))
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

/// The newest mark that is whole, and its slot.
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
    // By a build that knew no manifest.
    if fields.iter().all(|byte| *byte == 0) {
        return Some((sequence, ManifestEnd::default()));
    }
    let end = ManifestEnd {
        number: fields.try_get_u64().ok()?,
        bytes: fields.try_get_u64().ok()?,
    };
    is_whole(slot, MARK_BYTES).then_some((sequence, end))
}

/// Whether the first `bytes` of a slot end in the checksum of those before it.
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
        "{} {what}: how far the database was synced is not known",
        path.join(FILE).display()
    ))
}
