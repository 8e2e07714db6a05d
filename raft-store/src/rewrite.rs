//! Writing log entries anew in their own place: same index, same term, less in them.
//!
//! Raft does not look into entries, and never asks for one that is applied to be what it was. So an
//! applied entry may be replaced where it stands, on each replica by itself: nothing moves, and what
//! counts the log's length counts the entry as it was appended. It is done by the committer like all
//! writes, so a power loss leaves each entry as it was or as it is to be. What an entry means, and what
//! may be taken out of it, is not known here.

use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use openraft::EntryPayload;
use ropewalk_proto::command::Command;
use tokio::sync::oneshot;

use crate::committer::Durability;
use crate::disk::{Batch, Change, DiskError, ScanLimit};
use crate::entry::{self, StoredEntry};
use crate::keys::{self, Key, Part};
use crate::replica_log::ReplicaLog;
use crate::sealed;
use crate::types::Entry;

/// What one step over a log came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// The index of the first entry that was not looked at; where it began, if the log no longer holds
    /// what it was to begin with.
    pub next: u64,
    /// Bytes of the entries looked at, as they were on the disk.
    pub before_bytes: u64,
    /// Bytes of the same entries as they are now.
    pub after_bytes: u64,
    /// How many of them were written anew.
    pub entries: u64,
}

impl ReplicaLog {
    /// Looks at the entries in `range`, about `max_bytes` of them, and writes those anew for which
    /// `replace` has another command. They must all be applied. An entry at which `replace` breaks off is
    /// for the next step.
    pub(crate) async fn rewrite(
        &self,
        range: Range<u64>,
        max_bytes: usize,
        mut replace: impl FnMut(&Entry) -> ControlFlow<(), Option<Command>> + Send,
    ) -> Result<Rewritten, DiskError> {
        let mut done = Rewritten {
            next: range.start,
            ..Rewritten::default()
        };
        let read = self.read_stored(range, max_bytes).await;
        let mut changed = Vec::new();
        for mut stored in self.noting(read)? {
            let ControlFlow::Continue(replaced) = replace(&stored.entry) else {
                break;
            };
            done.next = stored.entry.log_id.index + 1;
            let bytes = payload_bytes(&stored.entry);
            done.before_bytes += bytes;
            match replaced {
                Some(command) => {
                    stored.entry.payload = EntryPayload::Normal(command);
                    done.after_bytes += payload_bytes(&stored.entry);
                    changed.push(stored);
                }
                None => done.after_bytes += bytes,
            }
        }
        done.entries = changed.len() as u64;
        if !changed.is_empty() {
            self.overwrite(changed).await?;
        }
        Ok(done)
    }

    /// Entries as they are stored, without a gap; none if the first is not there any more.
    async fn read_stored(
        &self,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<StoredEntry>, DiskError> {
        let start = range.start;
        let end = {
            let marks = self.marks();
            let end = range.end.min(marks.next());
            if start < marks.first() || start >= end {
                return Ok(Vec::new());
            }
            match marks.tail.first() {
                Some(first) if first <= start => {
                    let stored = marks.tail.stored(start, end, max_bytes as u64);
                    return Ok(stored.cloned().collect());
                }
                Some(first) => end.min(first),
                None => end,
            }
        };
        let limit = ScanLimit {
            max_bytes,
            max_pairs: usize::try_from(end - start).unwrap_or(usize::MAX),
        };
        let keys = keys::log(self.replica, start, end - 1);
        let mut all = Vec::new();
        for ((key, value), index) in self
            .disk()
            .scan_once(keys, limit)
            .await?
            .iter()
            .zip(start..)
        {
            let stored = entry::read(key, value.clone())?;
            if stored.entry.log_id.index != index {
                break;
            }
            all.push(stored);
        }
        Ok(all)
    }

    /// Writes entries in the place of those of the same log ids, unless the log begins behind the first
    /// of them by now.
    async fn overwrite(&self, stored: Vec<StoredEntry>) -> Result<(), DiskError> {
        let changes: Vec<Change> = stored
            .iter()
            .map(|stored| entry::put(self.replica, stored))
            .collect();
        let (tx, written) = oneshot::channel();
        {
            let _beginning = self.hold_beginning().await;
            let first = self.marks().first();
            if stored.iter().any(|one| one.entry.log_id.index < first) {
                return Ok(());
            }
            let done = move |result| drop(tx.send(result));
            self.submit(Batch { changes }, Durability::Unsynced, done)
                .await;
        }
        let gone = |_| DiskError::Failed("the committer has stopped".to_owned());
        written.await.map_err(gone)??;
        // Behind the write, so that no reader sees the old entry after the new one.
        let mut marks = self.marks();
        stored.into_iter().for_each(|one| marks.tail.replace(one));
        Ok(())
    }

    /// What was noted last.
    pub(crate) async fn note(&self) -> Result<Option<Bytes>, DiskError> {
        let key = Key::Of(self.replica, Part::Note).encode();
        let found = self.disk().get(key.clone()).await;
        let value =
            found.and_then(|found| found.map(|value| sealed::open(&key, value)).transpose());
        self.noting(value)
    }

    /// Notes something instead of what was noted before; it, and all that was written before it, is
    /// synced once this returns.
    pub(crate) async fn put_note(&self, note: Bytes) -> Result<(), DiskError> {
        let key = Key::Of(self.replica, Part::Note).encode();
        let changes = vec![sealed::put(key, note)];
        self.commit(Batch { changes }, Durability::Synced).await
    }

    /// Says that entries in `range` were written anew, so that the space of the old ones is given back.
    pub(crate) fn reclaim(&self, range: Range<u64>) {
        if let Some(last) = range.end.checked_sub(1) {
            let keys = keys::log(self.replica, range.start, last);
            self.disk().overwritten(keys);
        }
    }
}

/// The length of what an entry holds now.
fn payload_bytes(entry: &Entry) -> u64 {
    let bytes = match &entry.payload {
        EntryPayload::Normal(command) => command.encoded_len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    (entry::HEAD_BYTES + bytes) as u64
}
