//! One partition: an ordered log of record batches, replicated by a Raft group.
//!
//! `machine` is the pure state that every replica of the group agrees on; it never sees a clock, a setting or
//! a socket. Around it: `produce` is the write path, `fetch` and `lookup` the read path, `steward` and its
//! helpers the leader's housekeeping, `registry` the replicas of a node. `groups` holds the reads and writes
//! of a group coordinator. Code here reads cluster metadata as the desired state. It writes only facts back:
//! reached memberships, damaged replicas and fences.

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
