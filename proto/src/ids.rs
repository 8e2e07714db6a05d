//! Ids, each with its own type, so that one can't be passed in place of another.

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
    /// One node of the cluster: one data directory, for the lifetime of that directory.
    NodeId
);
id!(
    /// One copy of one group on one node. An id is used once. A replica that returns without its data gets
    /// a new id, since a voter that forgot what it acknowledged breaks Raft.
    ReplicaId
);
id!(
    /// One Raft group: the metadata group, or one partition of one topic.
    GroupId
);
id!(
    /// One topic, from its creation to its deletion. A later topic of the same name has another id.
    TopicId
);

/// The internal topic whose partition leaders coordinate consumer groups.
pub const GROUPS_TOPIC: &str = "_groups";

/// Returns true for a topic of the cluster itself: only the cluster creates, fills or deletes it.
pub fn is_internal(topic: &str) -> bool {
    topic.starts_with('_')
}

impl GroupId {
    /// The metadata group, replicated to every node.
    pub const META: GroupId = GroupId(0);
}

impl From<u64> for ReplicaId {
    /// openraft's storage tests make node ids from numbers.
    fn from(id: u64) -> ReplicaId {
        ReplicaId(id)
    }
}
