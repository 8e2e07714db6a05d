//! One partition: an ordered log of record batches, kept by a Raft group.
//!
//! `machine` is the pure state every replica of the group agrees on; it never sees a clock, a
//! setting or a socket. Around it: `produce` the way in, `fetch` and `lookup` the way out,
//! `steward` and what it calls the leader's housekeeping, `registry` the replicas of a node. `groups`
//! is what a coordinator of consumer groups writes and reads.
//! Cluster metadata is read here as a picture of what should be; the one thing said back to it is
//! that a membership has come to be as wished.

mod balance;
mod clock;
#[cfg(test)]
mod cluster_tests;
mod compaction;
mod epochs;
mod fetch;
mod followers;
mod founding;
mod gate;
#[cfg(test)]
mod gate_tests;
mod groups;
mod growth;
mod host;
mod lookup;
mod machine;
mod membership;
#[cfg(test)]
mod membership_tests;
mod offsets;
mod produce;
mod producers;
mod quarantine;
#[cfg(test)]
mod quarantine_tests;
mod records;
mod registry;
#[cfg(test)]
mod registry_tests;
mod replica;
mod retention;
mod segments;
mod state;
mod steward;
#[cfg(test)]
mod test_cluster;
mod turns;
#[cfg(test)]
mod unpack_tests;
mod walk;

pub use fetch::{FetchSpec, Fetched, LEAST_READ_BYTES};
pub use lookup::{Backlog, Listed, Position};
pub use machine::PartitionMachine;
pub use produce::{Appended, Ticket};
pub(crate) use quarantine::lost_majority;
pub use registry::Partitions;
pub use replica::{Partition, PartitionId};
