//! One partition: an ordered log of record batches, replicated by a Raft group.
//!
//! The state on which every replica of the group agrees is `ropewalk_machines::log`, and a running replica is
//! `raft::Replica`. Around them: `produce` is the write path, `fetch` and `lookup` the read path, `steward` and
//! its helpers the leader's housekeeping, `registry` the replicas of a node. `groups` holds the reads and writes
//! of a group coordinator. Code here reads cluster metadata as the desired state. It writes only facts back:
//! reached memberships, damaged replicas and fences.
//!
//! Some names are Ropewalk's own:
//! - A **wish** is the desired state of a partition in the metadata. A **fact** is a report back to it.
//! - A **ring** is the mapping of keys to partitions; its version rises when a topic grows, that is, gets more
//!   partitions. A **fence** is the routing barrier of a growth: an entry behind which the log refuses batches
//!   routed by an older ring. Kafka's fencing of producers is separate, in `producers`.
//! - A **boundary** is the end of a segment, where the log may be cut. A **roll** ends the active segment.
//! - A **claim** is the producer id, epoch and sequence of a batch. (The replica's field `claims` is something
//!   else: the compaction progress that other replicas report.)
//! - An **effect** is the change of one key of the applied state on disk.
//! - **Founding** writes the first membership of a new Raft group. **Newcomers** are learners that get a vote
//!   once they have caught up.
//! - `made(Mistake::…)` is a bug that the simulator plants to test its checks; elsewhere it is always false.

mod balance;
#[cfg(test)]
mod cluster_tests;
mod compaction;
mod fetch;
mod founding;
mod gate;
#[cfg(test)]
mod gate_tests;
mod groups;
mod growth;
mod host;
mod lookup;
mod membership;
#[cfg(test)]
mod membership_tests;
mod produce;
mod quarantine;
#[cfg(test)]
mod quarantine_tests;
mod records;
mod registry;
#[cfg(test)]
mod registry_tests;
mod replica;
mod retention;
mod steward;
#[cfg(test)]
mod test_cluster;
mod turns;
#[cfg(test)]
mod unpack_tests;
mod walk;

pub use fetch::{FetchSpec, Fetched, LEAST_READ_BYTES};
pub use lookup::{Backlog, Listed, Position};
pub use produce::{Appended, Ticket};
pub(crate) use quarantine::lost_majority;
pub use registry::Partitions;
pub use replica::{Partition, PartitionId};
