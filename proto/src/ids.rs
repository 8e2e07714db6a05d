//! Ids, each its own type, so that one can't be passed where another is meant.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// One node of the cluster: one data directory, for as long as that directory lives.
    NodeId
);
id!(
    /// One copy of one group on one node. Used once: a replica that comes back without its data
    /// comes back under a new id, since a voter that forgot what it acknowledged breaks Raft.
    ReplicaId
);
id!(
    /// One Raft group: the metadata group, or one partition of one topic.
    GroupId
);
id!(
    /// One topic, from its creation to its deletion; a topic of the same name made later has another.
    TopicId
);

/// The internal topic whose partitions' leaders coordinate consumer groups.
pub const GROUPS_TOPIC: &str = "_groups";

/// Whether a topic is the cluster's own: nobody else creates, fills or deletes it.
pub fn is_internal(topic: &str) -> bool {
    topic.starts_with('_')
}

impl GroupId {
    /// The metadata group, replicated to every node.
    pub const META: GroupId = GroupId(0);
}

impl From<u64> for ReplicaId {
    /// openraft's storage tests make node ids out of numbers.
    fn from(id: u64) -> ReplicaId {
        ReplicaId(id)
    }
}
