//! openraft on a disk: one database and one ordered committer for all groups of a node.
//!
//! Only this crate names `rocksdb`; only this crate and `node/` name `openraft`. A group's `ropewalk_machines::Machine`
//! decides how entries apply and how far its log may be purged. Topics, records and clients must never come
//! in here.

mod checkpoint;
mod checksum;
pub mod committer;
pub mod convert;
pub mod data_dir;
mod digest;
pub mod disk;
mod entry;
pub mod histogram;
pub mod inspect;
mod keys;
mod log;
mod log_cache;
mod open;
mod openraft_log;
mod openraft_state_machine;
pub mod purge;
pub mod reader;
mod rewrite;
pub mod runtime;
pub mod scrub;
pub mod store;
mod traces;
pub mod types;
mod values;

pub use checkpoint::SnapshotBuilder;
pub use committer::DiskStatus;
pub use disk::{Disk, DiskError};
pub use histogram::{Histogram, HistogramCounts};
pub use openraft_log::LogStore;
pub use openraft_state_machine::StateMachine;
pub use purge::{PurgeError, purge_to_boundary};
pub use reader::ReplicaReader;
pub use rewrite::Rewritten;
pub use runtime::seed_randomness;
pub use scrub::Scrub;
pub use store::{Replica, Store, StoreError, StoreOptions};
pub use traces::{Followed, Traces};
pub use types::{Raft, RaftNode, TypeConfig};
