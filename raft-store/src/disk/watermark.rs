//! How far the database was synced, written down outside its write-ahead log.
//!
//! A log cut at the end of a record looks like one that ended there: the database opens, and what
//! was acknowledged behind the cut is gone without a word. So after every sync the database's
//! sequence number goes into a small file of its own, and a database that opens below it is
//! refused.
//!
//! The file is written after the sync and itself synced only now and then: it may be behind what
//! is on the disk, never ahead, so it refuses nothing that is whole. A process that is killed leaves
//! it exact; after a power loss it is as old as [`SYNC_EVERY`], or what the system wrote back since.
//! Two slots are written in turn, so that one torn write leaves the other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, BufMut};
use tokio::time::Instant;

use super::DiskError;

const FILE: &str = "WATERMARK";
/// What RocksDB has in each of its directories, from its creation on.
const DATABASE_FILE: &str = "CURRENT";
const MAGIC: u64 = u64::from_be_bytes(*b"rwmark01");
/// A sector each, so that no write touches both.
const SLOT_BYTES: usize = 512;
const MARK_BYTES: usize = 20;

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
        let mark = Watermark::of(Box::new(file), is_new, path)?;
        if is_new {
            File::open(path)
                .and_then(|directory| directory.sync_all())
                .map_err(failed)?;
        }
        Ok(mark)
    }

    /// Reads the mark of the database at `path` from its file, or makes it if there is no database
    /// yet. Durable before the database is there: a database without a mark has lost it.
    pub(super) fn of(
        file: Box<dyn MarkFile>,
        is_new: bool,
        path: &Path,
    ) -> Result<Watermark, DiskError> {
        let failed = |error| failed(path, &error);
        let mut mark = Watermark {
            file,
            sequence: 0,
            next_slot: 0,
            synced_at: Instant::now(),
        };
        let text = mark.file.read().map_err(failed)?;
        match newest(&text) {
            // RocksDB would begin anew beside what is left of the old database.
            Some((sequence, _)) if is_new && sequence > 0 => {
                return Err(DiskError::Damaged(format!(
                    "{} is missing, though {sequence} changes were synced",
                    path.join(DATABASE_FILE).display()
                )));
            }
            _ if is_new => mark.create().map_err(failed)?,
            Some((sequence, slot)) => {
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
        if sequence >= self.sequence {
            return Ok(());
        }
        Err(DiskError::Damaged(format!(
            "the write-ahead log was cut: change {} was synced, and the database ends at {sequence}",
            self.sequence
        )))
    }

    /// Notes that everything up to `sequence` is synced.
    pub(super) fn advance(&mut self, sequence: u64) -> Result<(), DiskError> {
        if sequence <= self.sequence {
            return Ok(());
        }
        self.sequence = sequence;
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
        let mut slot = [0_u8; SLOT_BYTES];
        let mut out = slot.as_mut_slice();
        out.put_u64(MAGIC);
        out.put_u64(self.sequence);
        let sum = crc32c::crc32c(&[MAGIC.to_be_bytes(), self.sequence.to_be_bytes()].concat());
        out.put_u32(sum);
        let at = (self.next_slot * SLOT_BYTES) as u64;
        self.file.write_at(at, &slot)?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }
}

/// The newest mark that is whole, and its slot.
fn newest(text: &[u8]) -> Option<(u64, usize)> {
    let slots = text.chunks(SLOT_BYTES).take(2).enumerate();
    let whole = slots.filter_map(|(number, slot)| Some((read(slot)?, number)));
    whole.max()
}

fn read(slot: &[u8]) -> Option<u64> {
    let covered = slot.get(..MARK_BYTES - 4)?;
    let sum = slot.get(MARK_BYTES - 4..MARK_BYTES)?.try_get_u32().ok()?;
    let mut fields = covered;
    let magic = fields.try_get_u64().ok()?;
    let sequence = fields.try_get_u64().ok()?;
    (magic == MAGIC && crc32c::crc32c(covered) == sum).then_some(sequence)
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
