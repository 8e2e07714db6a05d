//! openraft's log store, as a thin layer over a [`ReplicaLog`].
//!
//! Only the trait's methods belong here. The layout of bytes and their way to the disk must never come in.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, RaftTypeConfig};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};

use crate::committer::Durability;
use crate::disk::{ChangeBatch, DiskError};
use crate::log::ReplicaLog;
use crate::types::{Entry, LogId, TypeConfig, Vote};
use crate::values;

/// The log and the vote of one replica, for openraft. Clones share one log.
#[derive(Debug, Clone)]
pub struct LogStore {
    log: Arc<ReplicaLog>,
}

impl LogStore {
    pub(crate) fn new(log: Arc<ReplicaLog>) -> LogStore {
        LogStore { log }
    }
}

/// Wraps an error as `io::Error`, openraft's type for storage errors.
pub(crate) fn io_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&index) => index,
        Bound::Excluded(&index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&index) => index.saturating_add(1),
        Bound::Excluded(&index) => index,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let entries = self.log.read_all(half_open(&range)).await;
        entries.map_err(io_error)
    }

    /// Reads part by part: the entries to apply may be far larger than memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let log = Arc::clone(&self.log);
        let parts = stream::try_unfold((log, half_open(&range)), |(log, range)| async move {
            let max_bytes = log.options().read_bytes as u64;
            let entries = log.read(range.clone(), max_bytes).await.map_err(io_error)?;
            let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
                return Ok(None);
            };
            if first.log_id.index != range.start {
                let gone = format!("log entry {} was purged before it was read", range.start);
                return Err(io_error(gone));
            }
            let rest = last.log_id.index + 1..range.end;
            let entries = stream::iter(entries.into_iter().map(Ok));
            Ok(Some((entries, (log, rest))))
        });
        Box::pin(parts.try_flatten())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let max_bytes = self.log.options().read_bytes as u64;
        let entries = self.log.read(start..end, max_bytes).await;
        entries.map_err(io_error)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.log.marks().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let marks = self.log.marks();
        Ok(LogState {
            last_purged_log_id: marks.purged.map(|purged| purged.log_id),
            last_log_id: marks.last,
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let batch = ChangeBatch {
            changes: vec![values::put_vote(self.log.replica, vote)],
        };
        if !is_planted(PlantedBug::ForgetTheVote) {
            let saved = self.log.commit(batch, Durability::Synced).await;
            saved.map_err(io_error)?;
        }
        self.log.marks().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed else {
            return Ok(());
        };
        self.log.marks().committed = Some(committed);
        let batch = ChangeBatch {
            changes: vec![values::put_committed(self.log.replica, committed)],
        };
        // Losing it costs nothing: the replica learns again what is committed. The next append detects a
        // disk that failed.
        let done = |_: Result<(), DiskError>| {};
        self.log.submit(batch, Durability::Unsynced, done).await;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.log.marks().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = <TypeConfig as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().collect();
        let done = |result: Result<(), DiskError>| callback.io_completed(result.map_err(io_error));
        let appended = self.log.append(entries, done).await;
        appended.map_err(io_error)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.log.truncate_after(last).await.map_err(io_error)
    }

    async fn purge(&mut self, to: LogId) -> Result<(), io::Error> {
        self.log.purge(to).await.map_err(io_error)
    }
}
