//! What the cluster is and should be: the metadata group, formation, placement, the controller.
//!
//! [`Cluster`] is what the other rooms see of it. Records, clients and partitions' own logs never
//! come in here: the controller writes wishes, and each partition's leader carries them out.

mod handle;
mod leaders;
pub mod view;

pub use handle::Cluster;
pub use leaders::{LeaderInfo, LeaderTable};
pub use view::ClusterView;
