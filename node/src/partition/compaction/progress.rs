//! Progress of one replica in compacting its own log, stored on its disk. Other nodes do not know it, except
//! for the offset that the replica reports to the leader.

use bytes::Bytes;
use prost::Message;
use ropewalk_machines::log::Compaction;
use ropewalk_machines::log::PartitionMachine;
use ropewalk_raft_store::{DiskError, ReplicaReader};

/// Progress of a replica. Everything below `to_offset` is compacted.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(in crate::partition) struct Progress {
    /// Offset below which each key has at most one record.
    #[prost(uint64, tag = "1")]
    pub to_offset: u64,
    /// First log index that was not rewritten.
    #[prost(uint64, tag = "2")]
    pub next_index: u64,
    /// Offset below which there are no tombstones.
    #[prost(uint64, tag = "3")]
    pub tombstones_below: u64,
    /// Current bytes of the entries that were processed.
    #[prost(uint64, tag = "4")]
    pub left_bytes: u64,
    /// Tombstones among them.
    #[prost(uint64, tag = "5")]
    pub tombstones: u64,
}

impl Progress {
    /// Reads the progress from the disk. If it does not parse, because a later build wrote it, the replica
    /// starts from the beginning: it repeats the work, with the same result.
    pub(in crate::partition) async fn load(
        view: &ReplicaReader<PartitionMachine>,
    ) -> Result<Progress, DiskError> {
        let note = view.note().await?;
        Ok(Progress::decode(note.unwrap_or_default()).unwrap_or_default())
    }

    /// Stores the progress. It is synced, together with all rewritten entries, once this returns.
    pub(super) async fn store(
        &self,
        view: &ReplicaReader<PartitionMachine>,
    ) -> Result<(), DiskError> {
        view.put_note(Bytes::from(self.encode_to_vec())).await
    }

    /// Returns true if nothing of the target is left to do.
    pub(super) fn has_done(&self, target: &Compaction) -> bool {
        self.to_offset >= target.to_offset && self.tombstones_below >= target.tombstones_below
    }
}
