//! What the cluster is and should be: the metadata group, formation, placement, the controller.

pub mod view;
