//! One partition: an ordered log of record batches, kept by a Raft group.
//!
//! `machine` is the pure state every replica of the group agrees on; it never sees a clock, a
//! setting or a socket. Cluster metadata is read here as a picture of what should be, and is never
//! changed from here.

mod epochs;
mod machine;
mod offsets;
mod producers;
mod segments;
mod state;

pub use machine::PartitionMachine;
