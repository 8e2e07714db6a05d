//! One Ropewalk node. [`run`] is the only way in, for the binary and for the simulator alike.
//!
//! The rooms: `cluster/` what the cluster is and should be; `partition/` one replica of one
//! partition; `group/` what its log says of consumer groups; `coordinator/` who looks after them;
//! `filter/` which records a reader wants; `peer/` Raft between nodes; `grpc/` what clients see;
//! `guard/` bounds around every service; `metrics/` what a node counts of itself; `ops/` what operators see.

pub mod cluster;
pub mod config;
mod coordinator;
mod disk;
pub mod env;
mod filter;
pub mod group;
mod grpc;
mod guard;
pub mod metrics;
mod ops;
pub mod partition;
pub mod peer;
mod ports;
pub mod raft_config;
mod raft_outcome;
mod run;
mod scrub;
mod unpack;
pub mod valve;

pub use config::Config;
pub use env::Env;
pub use run::{Ready, RunError, run};
