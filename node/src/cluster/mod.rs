//! The cluster's actual and desired state: the metadata group, formation, the controller. The metadata itself is
//! `ropewalk_machines::meta`, which also explains the words view, wish, retiring, understood and raise.
//!
//! [`Cluster`] is the interface to the other rooms. Records, clients and partitions' own logs do not belong
//! here. The controller writes the desired state; each partition's leader brings its own Raft group to it.
//!
//! Some names are Ropewalk's own:
//! - The **metadata group** is a Raft group with a replica on every node, at most five of them voters. Its
//!   leader runs the controller, as in KRaft.
//! - An **incarnation** is 16 random bytes of a data directory. It identifies a node before the node has an id.
//!   A **start** identifies one process of the node.

mod admission;
mod bootstrap;
mod clock;
#[cfg(test)]
mod cluster_tests;
mod context;
mod controller;
mod discovery;
mod handle;
mod heartbeat;
#[cfg(test)]
mod heartbeat_tests;
mod identity;
mod leaders;
mod members;
mod naming;
mod propose;
mod service;
mod starts;
mod whereabouts;

pub use context::StartError;
pub use handle::Cluster;
pub use leaders::{LeaderInfo, LeaderTable};
pub use naming::check_config;
pub use service::ClusterService;
