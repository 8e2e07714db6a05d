//! The cluster's actual and desired state: the metadata group, formation, placement, the controller.
//!
//! [`Cluster`] is the interface to the other rooms. Records, clients and partitions' own logs do not belong
//! here. The controller writes the desired state; each partition's leader brings its own Raft group to it.
//!
//! Some names are Ropewalk's own:
//! - The **metadata group** is a Raft group with a replica on every node, at most five of them voters. Its
//!   leader runs the controller, as in KRaft. A **view** is a snapshot of its state (KRaft's metadata image).
//! - An **incarnation** is 16 random bytes of a data directory. It identifies a node before the node has an id.
//!   A **start** identifies one process of the node.
//! - A **wish** is the desired set of replicas of a partition. **Retiring** replicas are no longer desired, but
//!   may still be in the Raft group.
//! - **Understood** is the highest command version that every node can apply. The leader refuses newer ones.
//! - A topic **grows** to more partitions. An internal topic is **raised** to more replicas. A partition
//!   **moves** to other nodes.

mod admission;
mod clock;
#[cfg(test)]
mod cluster_tests;
mod controller;
mod formation;
mod handle;
mod identity;
mod leaders;
mod members;
mod naming;
mod propose;
mod report;
#[cfg(test)]
mod report_tests;
mod service;
mod shared;
mod starts;
mod survey;
mod whereabouts;

pub use handle::Cluster;
pub use leaders::{LeaderInfo, LeaderTable};
pub use naming::check_config;
pub use service::ClusterService;
pub use shared::StartError;
