//! How far one replica has compacted its own log: noted on its disk, and nobody else's business but
//! the leader's, who is told the offset.

use bytes::Bytes;
use prost::Message;
use ropewalk_raft_store::{DiskError, ReplicaView};

use crate::partition::PartitionMachine;
use crate::partition::state::Compaction;

/// What a replica has done. Everything below `to_offset` is as compaction leaves it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(in crate::partition) struct Progress {
    /// Below this offset, each key has one record at most.
    #[prost(uint64, tag = "1")]
    pub to_offset: u64,
    /// The first log index that was not rewritten.
    #[prost(uint64, tag = "2")]
    pub next_index: u64,
    /// Below this offset there is no record without a value.
    #[prost(uint64, tag = "3")]
    pub tombstones_below: u64,
    /// Bytes of the entries that were gone through, as they are now.
    #[prost(uint64, tag = "4")]
    pub left_bytes: u64,
    /// Records without a value among them.
    #[prost(uint64, tag = "5")]
    pub tombstones: u64,
}

impl Progress {
    /// What is noted on the disk. A note of a later build that does not read begins from nothing:
    /// what is done already is then done again, and comes to the same.
    pub(in crate::partition) async fn load(
        view: &ReplicaView<PartitionMachine>,
    ) -> Result<Progress, DiskError> {
        let note = view.note().await?;
        Ok(Progress::decode(note.unwrap_or_default()).unwrap_or_default())
    }

    /// Notes it on the disk: it is synced, and all that was rewritten, once this returns.
    pub(super) async fn store(
        &self,
        view: &ReplicaView<PartitionMachine>,
    ) -> Result<(), DiskError> {
        view.put_note(Bytes::from(self.encode_to_vec())).await
    }

    /// Whether there is nothing left to do of what the log asks for.
    pub(super) fn has_done(&self, target: &Compaction) -> bool {
        self.to_offset >= target.to_offset && self.tombstones_below >= target.tombstones_below
    }
}
