//! Reads all stored data only to verify it. Otherwise, damage in data that nobody reads would be found when
//! the data is needed, and by then on more than one node.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::checksum;
use crate::disk::{Disk, DiskError, ScanLimit};
use crate::entry;
use crate::keys::{self, Key, Part};

/// Maximum number of pairs read in one step.
const STEP_PAIRS: usize = 4_096;

/// Callback that records damage.
pub(crate) type Note = Arc<dyn Fn(&str) + Send + Sync>;

/// One pass over a range of the disk, in steps of a size that the caller chooses.
pub struct Scrub {
    disk: Arc<dyn Disk>,
    rest: Range<Bytes>,
    note: Note,
}

impl fmt::Debug for Scrub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrub")
            .field("rest", &self.rest)
            .finish_non_exhaustive()
    }
}

impl Scrub {
    pub(crate) fn new(disk: Arc<dyn Disk>, range: Range<Bytes>, note: Note) -> Scrub {
        Scrub {
            disk,
            rest: range,
            note,
        }
    }

    /// Reads about `max_bytes` more, and returns the number of bytes read; `None` at the end.
    ///
    /// # Errors
    /// `Damaged` at the first damage, which is recorded with the owner of the data before this returns;
    /// `Failed` if the disk could not be read.
    pub async fn step(&mut self, max_bytes: usize) -> Result<Option<u64>, DiskError> {
        let read = self.read(max_bytes).await;
        if let Err(DiskError::Damaged(what)) = &read {
            (self.note)(what);
        }
        read
    }

    async fn read(&mut self, max_bytes: usize) -> Result<Option<u64>, DiskError> {
        let limit = ScanLimit {
            max_bytes,
            max_pairs: STEP_PAIRS,
        };
        let pairs = self.disk.scan_once(self.rest.clone(), limit).await?;
        let Some((last, _)) = pairs.last() else {
            return Ok(None);
        };
        self.rest.start = keys::after(last);
        let mut bytes = 0;
        for (key, value) in pairs {
            bytes += (key.len() + value.len()) as u64;
            check(&key, value)?;
        }
        Ok(Some(bytes))
    }
}

/// Refuses a pair that is not as it was written under its key.
fn check(key: &Bytes, value: Bytes) -> Result<(), DiskError> {
    match Key::decode(key) {
        Some(Key::Of(_, Part::Log(_))) => match entry::read(key, value) {
            Err(damaged @ DiskError::Damaged(_)) => Err(damaged),
            // An entry of a newer build is whole, too.
            _ => Ok(()),
        },
        Some(_) => checksum::open(key, value).map(drop),
        None => Err(checksum::damaged(key, "its kind is unknown")),
    }
}
