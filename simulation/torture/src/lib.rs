//! Chaos tests on real processes. While producers publish and readers read, the tests inflict on a running
//! cluster every fault of processes, disks and networks that the machine permits. Afterwards every
//! acknowledged record must be there exactly once, in order per key, and the cluster must have recovered.
//!
//! Faults that a seed can produce in virtual time belong to the simulator. These tests are for faults that
//! only real processes, a real kernel and a real RocksDB on a real file system show.

//!
//! [`day_two`] runs routine operations on a healthy cluster in the same environment.

pub mod check;
pub mod cluster;
pub mod day_two;
pub mod fault_kind;
pub mod faults;
pub mod history;
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
