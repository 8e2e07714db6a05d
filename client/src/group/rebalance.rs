//! What a subscription tells of its partitions and its coordinator, beside the records.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::reader::Skipped;

/// A partition by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number there.
    pub partition: u32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What happened to a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rebalance {
    /// These are the member's now. Told before the first record of them.
    Assigned(Vec<TopicPartition>),
    /// These are to go to another member. No more records of them come; once those that are out
    /// are done, or the time for it is up, their positions are committed and they are given up.
    /// Where commits are manual, a commit asked for by the listener is the last one.
    Revoked(Vec<TopicPartition>),
    /// These are another member's already: nothing of them can be committed any more, and what is
    /// out of them comes again elsewhere.
    Lost(Vec<TopicPartition>),
    /// The coordinator can't be heard. Records that were assigned come on until the session is over
    /// by this member's own clock; the member looks for its coordinator meanwhile.
    Disconnected(Error),
    /// A coordinator is heard again.
    Reconnected,
    /// A partition could not be read for as long as the subscription's patience goes. It is tried
    /// again.
    Unreadable(TopicPartition, Error),
    /// Records can't be read by anybody, and were gone past as the subscription was told to. They
    /// count as read.
    Skipped(Skipped),
    /// The subscription names these topics, and they do not exist: they were deleted, or the names are
    /// mistyped. The member goes on with its other topics, and reads these once they are created. Told
    /// when the list changes, and not for an empty one.
    TopicsMissing(Vec<String>),
}

type Hears = dyn Fn(&Rebalance) + Send + Sync;

/// Whom to tell.
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
