//! The metadata of a cluster: nodes, topics, partitions and the producers' epochs, as applied from a log.
//!
//! [`MetaMachine`] is the state of which every node holds a copy; [`MetadataImage`] is a snapshot of it for
//! readers. `entity/` has one file for each kind of thing in it, and `machine` the table of them. `placement` and
//! `balance` decide where replicas belong.
//!
//! Some names are Ropewalk's own:
//! - A **view** is a snapshot of the state (KRaft's metadata image).
//! - A **wish** is the desired set of replicas of a partition. **Retiring** replicas are no longer desired, but
//!   may still be in the Raft group.
//! - **Understood** is the highest command version that every node can apply. The leader refuses newer ones.
//! - A topic **grows** to more partitions. An internal topic is **raised** to more replicas. A partition
//!   **moves** to other nodes.

pub mod balance;
mod entity;
pub mod frozen;
mod image;
pub mod machine;
#[cfg(test)]
mod machine_tests;
pub mod nodes;
pub mod placement;
#[cfg(test)]
mod placement_tests;
pub mod quantity;
pub mod raise;
pub mod settings;
pub mod starts;
pub mod view;

use ropewalk_proto::error::{ErrorCode, WireError};

pub use entity::producer::LAST_PRODUCER_EPOCH;
pub use machine::MetaMachine;
pub use raise::INTERNAL_REPLICAS;
pub use view::MetadataImage;

/// The error for a request that is not valid, with its message.
pub fn invalid(message: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::InvalidRequest, message)
}
