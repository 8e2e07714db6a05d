//! openraft on a disk: one database and one ordered committer for all groups of a node.
//!
//! Only this crate names `rocksdb`; only this crate and `node/` name `openraft`. A group's `ropewalk_machines::Machine`
//! decides how entries apply and how far its log may be purged. Topics, records and clients must never come
//! in here.

mod checkpoint;
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
mod open;
pub mod purge;
mod replica_log;
mod rewrite;
pub mod runtime;
pub mod scrub;
mod sealed;
mod small;
mod state;
pub mod store;
mod tail;
mod traces;
pub mod types;
pub mod view;

pub use checkpoint::SnapshotBuilder;
pub use committer::DiskStatus;
pub use disk::{Disk, DiskError};
pub use histogram::{Histogram, HistogramCounts};
pub use log::LogStore;
pub use purge::{PurgeError, purge_to_boundary};
pub use rewrite::Rewritten;
pub use runtime::seed_randomness;
pub use scrub::Scrub;
pub use state::StateMachine;
pub use store::{Replica, Store, StoreError, StoreOptions};
pub use traces::{Followed, Traces};
pub use types::{Broker, Raft, TypeConfig};
pub use view::ReplicaView;
