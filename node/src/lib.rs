//! One Ropewalk node. [`run`] is the only way in, for the binary and for the simulator alike.
//!
//! The rooms: `cluster/` what the cluster is and should be; `partition/` one replica of one
//! partition; `peer/` Raft between nodes; `grpc/` what clients see; `ops/` what operators see.

pub mod cluster;
pub mod config;
mod disk;
pub mod env;
mod grpc;
mod ops;
pub mod partition;
pub mod peer;
pub mod raft_config;
mod run;
mod scrub;

pub use config::Config;
pub use env::Env;
pub use run::{Ready, RunError, run};
