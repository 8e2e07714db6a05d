//! Ids in a file: those of the window, and older ones until the file is rewritten.
//!
//! The file is a sequence of entries. Each is the length of the id (4 bytes, little-endian), the CRC-32C of
//! length and id (4 bytes), and the id. The file is append-only, and is replaced as a whole once half of it
//! is obsolete. Opening it truncates a partial entry that a crash left at the end.

use std::fs::TryLockError;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::DedupStore;
use super::window::Window;
use crate::error::{Error, ErrorKind, Result};

/// Maximum length of an id, in bytes. A longer length field is damage.
const MAX_ID_BYTES: usize = 4_096;
/// Bytes of length and checksum.
const HEAD_BYTES: usize = 8;
/// Entries per live id at which the file is rewritten.
const ENTRIES_PER_ID: usize = 2;

/// Keeps the last ids in a file, for one process at a time. Ids survive a crash of the process; synced ids
/// survive a power failure.
#[derive(Debug)]
pub struct FileDedupStore {
    path: PathBuf,
    file: File,
    window: Window,
    entries: usize,
    lost_bytes: usize,
    /// A write failed: the end of the file is no longer known.
    failed: bool,
}

impl FileDedupStore {
    /// Opens or creates a file of ids that keeps the last `window` of them.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the file can't be read or written, or another process has it open.
    pub async fn open(path: impl AsRef<Path>, window: NonZeroUsize) -> Result<FileDedupStore> {
        let path = path.as_ref().to_path_buf();
        let opened = FileDedupStore::try_open(&path, window).await;
        opened.map_err(|error| storage("opening", &path, &error))
    }

    async fn try_open(path: &Path, window: NonZeroUsize) -> io::Result<FileDedupStore> {
        let mut file = locked(path, false).await?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).await?;
        let mut window = Window::new(window);
        let (mut entries, mut rest) = (0, bytes.as_slice());
        while let Some((id, after)) = entry(rest) {
            window.insert(id);
            entries += 1;
            rest = after;
        }
        let whole = bytes.len() - rest.len();
        if !rest.is_empty() {
            let (path, bytes) = (path.display(), rest.len());
            tracing::warn!(%path, bytes, "the end of the file of processed ids is cut off, since it is damaged");
            file.set_len(whole as u64).await?;
        }
        file.seek(io::SeekFrom::End(0)).await?;
        Ok(FileDedupStore {
            path: path.to_path_buf(),
            file,
            window,
            entries,
            lost_bytes: rest.len(),
            failed: false,
        })
    }

    /// Bytes at the end of the file that were damaged when it was opened. After a crash this is a partial
    /// write, less than one entry. More than that means damage, and lost ids.
    pub fn lost_bytes(&self) -> usize {
        self.lost_bytes
    }

    async fn append(&mut self, id: &[u8]) -> io::Result<()> {
        self.file.write_all(&encoded(id)).await?;
        self.file.flush().await?;
        self.entries += 1;
        if self.entries >= self.window.len().saturating_mul(ENTRIES_PER_ID).max(1_024) {
            self.write_anew().await?;
        }
        Ok(())
    }

    /// Replaces the file by one that holds the window alone. After a crash, either the old or the new file
    /// exists.
    async fn write_anew(&mut self) -> io::Result<()> {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".new");
        let aside = PathBuf::from(aside);
        let mut file = locked(&aside, true).await?;
        let all: Vec<u8> = self.window.iter().flat_map(encoded).collect();
        file.write_all(&all).await?;
        file.sync_all().await?;
        tokio::fs::rename(&aside, &self.path).await?;
        if let Some(parent) = self.path.parent() {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            File::open(parent).await?.sync_all().await?;
        }
        self.file = file;
        self.entries = self.window.len();
        Ok(())
    }

    fn done(&mut self, what: &str, result: io::Result<()>) -> Result<()> {
        self.failed |= result.is_err();
        result.map_err(|error| storage(what, &self.path, &error))
    }
}

impl DedupStore for FileDedupStore {
    async fn contains(&mut self, id: &[u8]) -> Result<bool> {
        Ok(self.window.contains(id))
    }

    async fn insert(&mut self, id: &[u8]) -> Result<()> {
        if id.len() > MAX_ID_BYTES {
            return Err(Error::invalid(format!(
                "an id of {} bytes; at most {MAX_ID_BYTES} are kept",
                id.len()
            )));
        }
        self.check()?;
        if !self.window.insert(id) {
            return Ok(());
        }
        let appended = self.append(id).await;
        self.done("writing to", appended)
    }

    async fn sync(&mut self) -> Result<()> {
        self.check()?;
        let synced = self.file.sync_data().await;
        self.done("syncing", synced)
    }
}

impl FileDedupStore {
    /// Rejects calls after a failed write or sync: the content of the file is unknown until it is read again.
    fn check(&self) -> Result<()> {
        if self.failed {
            let path = self.path.display();
            let message = format!("a write to {path} has failed before; open it again");
            return Err(Error::new(ErrorKind::Storage, message));
        }
        Ok(())
    }
}

async fn locked(path: &Path, anew: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(anew);
    let file = options.open(path).await?.into_std().await;
    match file.try_lock() {
        Ok(()) => Ok(File::from_std(file)),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another process keeps ids in it; give each one a file of its own",
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn encoded(id: &[u8]) -> Vec<u8> {
    let len = u32::try_from(id.len()).unwrap_or(u32::MAX).to_le_bytes();
    let crc = checksum(&len, id);
    [&len[..], &crc.to_le_bytes(), id].concat()
}

fn checksum(len: &[u8; 4], id: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(len), id)
}

/// The first entry and the bytes after it; none if there is no entry or it is damaged.
fn entry(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let (len, crc) = head.split_first_chunk::<4>()?;
    let id_bytes = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    if id_bytes > MAX_ID_BYTES {
        return None;
    }
    let (id, after) = rest.split_at_checked(id_bytes)?;
    let crc = u32::from_le_bytes(crc.try_into().ok()?);
    (crc == checksum(len, id)).then_some((id, after))
}

fn storage(what: &str, path: &Path, error: &io::Error) -> Error {
    let message = format!(
        "{what} the file of processed ids {}: {error}",
        path.display()
    );
    Error::new(ErrorKind::Storage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(most: usize) -> NonZeroUsize {
        most.try_into().unwrap()
    }

    async fn with_ids(path: &Path, ids: std::ops::Range<u32>) -> FileDedupStore {
        let mut seen = FileDedupStore::open(path, window(100)).await.unwrap();
        for id in ids {
            seen.insert(&id.to_le_bytes()).await.unwrap();
        }
        seen.sync().await.unwrap();
        seen
    }

    async fn known(seen: &mut FileDedupStore, ids: std::ops::Range<u32>) -> Vec<u32> {
        let mut known = Vec::new();
        for id in ids {
            if seen.contains(&id.to_le_bytes()).await.unwrap() {
                known.push(id);
            }
        }
        known
    }

    #[tokio::test]
    async fn ids_survive_a_restart_and_the_window_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids");
        drop(with_ids(&path, 0..150).await);
        let mut seen = with_ids(&path, 0..0).await;
        assert_eq!(known(&mut seen, 0..200).await, Vec::from_iter(50..150));
        assert_eq!(seen.lost_bytes(), 0);
    }

    #[tokio::test]
    async fn whatever_a_crash_leaves_of_the_file_its_whole_entries_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids");
        drop(with_ids(&path, 0..4).await);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut seen = with_ids(&path, 9..10).await;
            let complete = (length / 12) as u32;
            let mut expected = Vec::from_iter(0..complete);
            expected.push(9);
            assert_eq!(known(&mut seen, 0..10).await, expected);
            assert_eq!(seen.lost_bytes(), length % 12);
            drop(seen);
            let mut again = with_ids(&path, 0..0).await;
            assert_eq!(known(&mut again, 0..10).await, expected);
            assert_eq!(again.lost_bytes(), 0);
        }
    }

    #[tokio::test]
    async fn no_flipped_bit_makes_up_an_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids");
        drop(with_ids(&path, 0..3).await);
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &damaged).unwrap();
            let seen = with_ids(&path, 0..0).await;
            let before = bit / 8 / 12;
            assert_eq!(seen.window.len(), before, "bit {bit}");
            assert_eq!(seen.lost_bytes(), whole.len() - before * 12);
        }
    }

    #[tokio::test]
    async fn a_file_is_written_anew_when_most_of_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids");
        let mut seen = with_ids(&path, 0..5_000).await;
        let bytes = std::fs::metadata(&path).unwrap().len();
        assert!(bytes <= 1_024 * 12, "{bytes} bytes for 100 ids");
        assert_eq!(
            known(&mut seen, 0..6_000).await,
            Vec::from_iter(4_900..5_000)
        );
        let error = FileDedupStore::open(&path, window(1)).await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Storage,
            "{error}: also the new one is locked"
        );
        drop(seen);
        let mut seen = with_ids(&path, 0..0).await;
        assert_eq!(
            known(&mut seen, 0..6_000).await,
            Vec::from_iter(4_900..5_000)
        );
    }

    #[tokio::test]
    async fn an_id_past_the_limit_is_refused_and_an_empty_one_is_an_id() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = with_ids(&dir.path().join("ids"), 0..0).await;
        let error = seen.insert(&vec![0; MAX_ID_BYTES + 1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(!seen.contains(b"").await.unwrap());
        seen.insert(b"").await.unwrap();
        assert!(seen.contains(b"").await.unwrap());
    }

    #[tokio::test]
    async fn an_event_is_processed_once_and_again_only_if_that_failed() {
        let seen = super::super::Deduplicator::new(super::super::MemoryDedupStore::new(window(2)));
        let failed = seen.once(b"a", async { Err::<(), _>(Error::invalid("no")) });
        assert!(failed.await.is_err());
        let first = seen.once(b"a", async { Ok::<_, Error>(1) }).await;
        assert_eq!(first.unwrap(), Some(1));
        let second = seen.once(b"a", async { Ok::<_, Error>(2) }).await;
        assert_eq!(second.unwrap(), None);
    }
}
