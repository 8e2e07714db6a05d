//! openraft on a disk: one database and one ordered committer for all the groups of a node.
//!
//! The only crate that names `rocksdb`; with `node/` the only one that names `openraft`. What is
//! applied, and when a log may be trimmed, is decided by the [`Machine`] a group is opened with:
//! nothing of topics, records or clients may come in here.

pub mod committer;
pub mod data_dir;
pub mod disk;
pub mod machine;
pub mod types;

pub use disk::{Disk, DiskError};
pub use machine::{Applied, Effect, Machine};
pub use types::{Broker, TypeConfig};
