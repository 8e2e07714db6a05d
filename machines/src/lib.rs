//! The pure state machines of a node: everything that an entry of a Raft log can change.
//!
//! `log/` is the log of one partition; `consumer_group/` the groups whose coordinator leads a partition;
//! `meta/` the metadata of the cluster. The same entries give the same state on every replica, so nothing here
//! awaits, draws a random number, or looks at a clock, a disk or a setting of the node. `Cargo.toml` holds that:
//! the crate depends on `ropewalk-proto` and on no runtime.

pub mod consumer_group;
pub mod log;
pub mod machine;
pub mod meta;

pub use machine::{Applied, Machine, MachineError, StateWrite};
