//! One partition: an ordered log of record batches, replicated by a Raft group.
//!
//! The state on which every replica of the group agrees is `ropewalk_machines::log`, which also explains the
//! words ring, fence and roll. A running replica is `raft::Replica`. Around them: `produce` is the write path,
//! `fetch`, `cursor` and `lookup` the read path, `reconciler` and its helpers the leader's housekeeping, and
//! `replica_manager` holds the replicas of a node. `groups` holds the reads and writes of a group coordinator.
//! Code here reads cluster metadata as the desired state. It writes only facts back: reached memberships,
//! damaged replicas and fences.
//!
//! Some names are Ropewalk's own:
//! - A **wish** is the desired state of a partition in the metadata. A **fact** is a report back to it.
//! - The replica's field `claims` is the compaction progress that other replicas report.
//! - **Founding** writes the first membership of a new Raft group. **Newcomers** are learners that get a vote
//!   once they have caught up.
//! - `is_planted(PlantedBug::…)` is a bug that the simulator plants to test its checks; elsewhere it is always false.

#[cfg(test)]
mod cluster_tests;
mod compaction;
mod cursor;
mod expansion;
mod fetch;
mod founding;
mod gate;
#[cfg(test)]
mod gate_tests;
mod groups;
mod lookup;
mod membership;
#[cfg(test)]
mod membership_tests;
mod node_context;
mod preferred_leader;
mod produce;
mod quarantine;
#[cfg(test)]
mod quarantine_tests;
mod reconciler;
mod records;
mod replica;
mod replica_manager;
#[cfg(test)]
mod replica_manager_tests;
mod retention;
#[cfg(test)]
mod test_cluster;
mod turns;
#[cfg(test)]
mod unpack_tests;

pub use fetch::{FetchSpec, Fetched, LEAST_READ_BYTES};
pub use lookup::{Backlog, FoundOffset, Position};
pub use produce::{Appended, PendingAppend};
pub(crate) use quarantine::lost_majority;
pub use replica::{Partition, PartitionId};
pub use replica_manager::ReplicaManager;
