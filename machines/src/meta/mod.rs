//! The metadata of a cluster: nodes, topics, partitions and the producers' epochs, as applied from a log.
//!
//! [`MetaMachine`] is the state of which every node holds a copy; [`ClusterView`] is a snapshot of it for
//! readers. `placement` and `balance` decide where replicas belong.
//!
//! Some names are Ropewalk's own:
//! - A **view** is a snapshot of the state (KRaft's metadata image).
//! - A **wish** is the desired set of replicas of a partition. **Retiring** replicas are no longer desired, but
//!   may still be in the Raft group.
//! - **Understood** is the highest command version that every node can apply. The leader refuses newer ones.
//! - A topic **grows** to more partitions. An internal topic is **raised** to more replicas. A partition
//!   **moves** to other nodes.

pub mod balance;
pub mod frozen;
mod growth;
pub mod machine;
#[cfg(test)]
mod machine_tests;
mod mirror;
mod moves;
pub mod nodes;
pub mod placement;
#[cfg(test)]
mod placement_tests;
pub mod producers;
pub mod quantity;
pub mod raise;
pub mod settings;
pub mod starts;
mod topics;
pub mod view;

use ropewalk_proto::error::{ErrorCode, WireError};

pub use machine::MetaMachine;
pub use producers::LAST_PRODUCER_EPOCH;
pub use raise::INTERNAL_REPLICAS;
pub use view::ClusterView;

/// The error for a request that is not valid, with its message.
pub fn invalid(message: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::InvalidRequest, message)
}
