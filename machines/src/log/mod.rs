//! The log of one partition: offsets, producers, segments, epochs and the consumer groups that it coordinates.
//!
//! [`PartitionMachine`] is the state of which every replica of the partition holds a copy. Records are not in
//! it: they stay in the Raft log.
//!
//! `machine` applies the entries: it assigns offsets, and calls the others. `producers` recognizes duplicate
//! batches, `offset_index` finds the log entry of an offset, `segments` and `epochs` are tables of offsets, `clock`
//! measures the age of producers. `keys` has the keys and values on the disk.
//!
//! Some names are Ropewalk's own:
//! - A **ring** is the mapping of keys to partitions; its version rises when a topic grows, that is, gets more
//!   partitions. A **fence** is the routing barrier of a growth: an entry behind which the log refuses batches
//!   routed by an older ring. Kafka's fencing of producers is separate, in `producers`.
//! - A **roll** ends the active segment. The log may be cut at the end of a segment.

mod clock;
mod epochs;
mod keys;
mod machine;
mod offset_index;
mod producers;
mod segments;

pub use keys::{Compaction, SegmentEnd};
pub use machine::PartitionMachine;
pub use offset_index::ScanStart;
pub use producers::{BatchIdentity, SequenceCheck, is_behind};

use ropewalk_proto::error::{ErrorCode, WireError};

/// Error for a batch whose keys may belong to other partitions by now.
fn stale_ring(ring_version: u32, oldest: u32) -> WireError {
    WireError::new(
        ErrorCode::StaleRing,
        format!(
            "batch was routed by ring version {ring_version}, and the oldest accepted version is \
             {oldest}; fetch the topic's metadata and route the batch again"
        ),
    )
}
