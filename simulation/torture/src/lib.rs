//! Real nodes under fire. Everything that a machine lets us do to processes, disks and networks is
//! done to a running cluster while producers publish and readers read; then everything that was
//! acknowledged must be there, exactly once, in order per key, and the cluster must be well.
//!
//! What can be had on one seed in virtual time belongs to the simulator. This is for what only real
//! processes, a real kernel and a real RocksDB on a real file system do.

//!
//! [`day_two`] is the same ground on a quiet day: what operators do to a cluster that works.

pub mod check;
pub mod day_two;
pub mod faults;
pub mod fleet;
pub mod history;
pub mod kind;
pub mod machine;
mod network;
pub mod node;
mod ports;
pub mod program;
pub mod readers;
pub mod schedule;
mod shell;
pub mod story;
pub mod workload;
