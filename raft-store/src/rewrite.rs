//! Rewrites log entries in place: same index, same term, less content.
//!
//! Raft does not look into entries, and does not need an applied entry to keep its content. So each replica
//! may replace an applied entry by itself. Nothing moves, and the log's length still counts the entry as it
//! was appended. The committer does this write like any other, so a power loss leaves each entry either old
//! or new. The meaning of an entry, and which parts may be removed, must never come in here.

use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use openraft::EntryPayload;
use ropewalk_proto::command::Command;
use tokio::sync::oneshot;

use crate::checksum;
use crate::committer::Durability;
use crate::disk::{Change, ChangeBatch, DiskError, ScanLimit};
use crate::entry::{self, StoredEntry};
use crate::keys::{self, Key, Part};
use crate::log::ReplicaLog;
use crate::types::Entry;

/// Result of one step over a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Index of the first entry not examined. It is the start of the range if the log no longer holds the
    /// entry there.
    pub next: u64,
    /// Bytes of the examined entries before the step.
    pub before_bytes: u64,
    /// Bytes of the same entries after the step.
    pub after_bytes: u64,
    /// Number of rewritten entries.
    pub entries: u64,
}

impl ReplicaLog {
    /// Examines about `max_bytes` of the entries in `range`, and rewrites those for which `replace` returns
    /// another command. All of them must be applied. An entry at which `replace` breaks off is left for the
    /// next step.
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

    /// Stored entries without a gap; none if the first is gone.
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

    /// Overwrites the entries of the same log ids, unless the log now begins after one of them.
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
            self.submit(ChangeBatch { changes }, Durability::Unsynced, done)
                .await;
        }
        let gone = |_| DiskError::Failed("committer has stopped".to_owned());
        written.await.map_err(gone)??;
        // After the write, so that no reader sees the old entry after the new one.
        let mut marks = self.marks();
        stored.into_iter().for_each(|one| marks.tail.replace(one));
        Ok(())
    }

    /// The last note, if there is one.
    pub(crate) async fn note(&self) -> Result<Option<Bytes>, DiskError> {
        let key = Key::Of(self.replica, Part::Note).encode();
        let found = self.disk().get(key.clone()).await;
        let value =
            found.and_then(|found| found.map(|value| checksum::open(&key, value)).transpose());
        self.noting(value)
    }

    /// Replaces the note. Once this returns, the note and everything written before it are synced.
    pub(crate) async fn put_note(&self, note: Bytes) -> Result<(), DiskError> {
        let key = Key::Of(self.replica, Part::Note).encode();
        let changes = vec![checksum::put(key, note)];
        self.commit(ChangeBatch { changes }, Durability::Synced)
            .await
    }

    /// Reports that entries in `range` were rewritten, so that the disk reclaims the space of the old ones.
    pub(crate) fn reclaim(&self, range: Range<u64>) {
        if let Some(last) = range.end.checked_sub(1) {
            let keys = keys::log(self.replica, range.start, last);
            self.disk().overwritten(keys);
        }
    }
}

/// Length of an entry with its current content.
fn payload_bytes(entry: &Entry) -> u64 {
    let bytes = match &entry.payload {
        EntryPayload::Normal(command) => command.encoded_len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    (entry::HEAD_BYTES + bytes) as u64
}
