//! Events of a subscription other than records: changes of its partitions and of its coordinator.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::reader::Skipped;

/// A partition by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of the partition.
    pub partition: u32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// An event of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rebalance {
    /// The member now has these partitions. Reported before their first record.
    Assigned(Vec<TopicPartition>),
    /// These partitions are about to go to another member. No more records of them are delivered. Once the
    /// outstanding ones are acknowledged, or the time for it is over, the member commits their positions and
    /// releases them. With manual commits, a commit that the listener requests is the last one.
    Revoked(Vec<TopicPartition>),
    /// Another member already has these partitions. Their positions can no longer be committed, and their
    /// outstanding records are delivered again elsewhere.
    Lost(Vec<TopicPartition>),
    /// The coordinator does not respond. Records of the assigned partitions are delivered until the session
    /// is over by this member's own clock. Meanwhile the member looks for its coordinator.
    Disconnected(Error),
    /// A coordinator responds again.
    Reconnected,
    /// The coordinator has no room for the member, as when the group is full. The member keeps trying for three
    /// session timeouts. Reported once until it joins.
    Refused(Error),
    /// A partition could not be read for the `unavailable_timeout`. The member keeps trying.
    Unreadable(TopicPartition, Error),
    /// No reader can read these records, and the member skipped them, as the subscription allows. They count
    /// as read.
    Skipped(Skipped),
    /// The subscription names these topics, and they do not exist: they were deleted, or the names are
    /// mistyped. The member continues with its other topics, and reads these once they are created. Reported
    /// when the list changes, except to an empty list.
    TopicsMissing(Vec<String>),
}

type Hears = dyn Fn(&Rebalance) + Send + Sync;

/// The application's listener, if there is one.
#[derive(Clone, Default)]
pub(super) struct Listener(Option<Arc<Hears>>);

impl Listener {
    pub fn new(listener: impl Fn(&Rebalance) + Send + Sync + 'static) -> Listener {
        Listener(Some(Arc::new(listener)))
    }

    pub fn tell(&self, what: &Rebalance) {
        if let Some(listener) = &self.0 {
            listener(what);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}
