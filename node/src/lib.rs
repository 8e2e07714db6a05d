//! One Ropewalk node. [`run`] is the only way to start it. The binary and the simulator both do so through
//! [`supervise::supervise`], which runs it again after its disk has failed or was found damaged.
//!
//! The rooms: `raft/` one running replica of any state machine; `cluster/` replica of the metadata, and the
//! controller; `partition/` one replica of one partition; `coordinator/` sessions and timers of consumer groups;
//! `filter/` selection of the records that a reader wants; `peer/` Raft between nodes; `service/` the operations
//! that a client can ask for; `grpc/` those operations over gRPC; `guard/` bounds around every service;
//! `metrics/` counters of a node; `ops/` health and metrics pages for operators. The state that the logs build
//! is in `ropewalk-machines`.

pub mod cluster;
pub mod config;
mod coordinator;
mod disk;
pub mod env;
mod filter;
mod grpc;
mod guard;
mod http2;
mod listeners;
pub mod log_limiter;
pub mod metrics;
mod ops;
pub mod partition;
pub mod peer;
mod raft;
mod run;
mod scrub;
mod service;
pub mod supervise;
mod unpack;

pub use config::Config;
pub use env::Env;
pub use listeners::ListenError;
pub use run::{Ready, RunError, run};
