//! Trace contexts of the sampled batches that this node proposes, so that traces show their way to the disk
//! and to other nodes. An untraced batch costs one read of a counter.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use openraft::EntryPayload;
use parking_lot::Mutex;
use ropewalk_proto::trace::TraceContext;
use tracing::Span;

use crate::types::Entry;

/// Maximum number of batches followed at a time.
const MOST: usize = 1_024;

/// The batches that are followed. Clones share them.
#[derive(Clone, Default)]
pub struct Traces(Arc<Inner>);

#[derive(Default)]
struct Inner {
    count: AtomicUsize,
    /// By the address of the batch, which is unique while the batch is held here.
    contexts: Mutex<BTreeMap<usize, (Bytes, TraceContext)>>,
}

/// Guard that keeps a batch followed until it is dropped.
#[must_use]
#[derive(Debug)]
pub struct Followed {
    traces: Traces,
    at: usize,
}

impl Traces {
    /// Follows a batch that is about to be proposed: work on it belongs to `context`. Returns `None` if too
    /// many batches are followed, or this one already is.
    pub fn follow(&self, batch: &Bytes, context: TraceContext) -> Option<Followed> {
        let mut contexts = self.0.contexts.lock();
        let at = place(batch);
        if contexts.len() >= MOST || contexts.contains_key(&at) {
            return None;
        }
        contexts.insert(at, (batch.clone(), context));
        self.0.count.store(contexts.len(), Ordering::Relaxed);
        let traces = self.clone();
        Some(Followed { traces, at })
    }

    /// Trace context of the batch in an entry, if the batch is followed.
    pub fn of(&self, entry: &Entry) -> Option<TraceContext> {
        if self.0.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let EntryPayload::Normal(command) = &entry.payload else {
            return None;
        };
        let (_, batch) = command.as_append()?;
        let contexts = self.0.contexts.lock();
        let found = contexts.get(&place(batch));
        found.map(|(_, context)| context.clone())
    }

    /// Spans of the sync of these entries, for the batches that are followed.
    pub(crate) fn syncing(&self, entries: &[Entry]) -> Vec<Span> {
        let followed = entries.iter().filter_map(|entry| self.of(entry));
        followed
            .map(|context| {
                let span = tracing::info_span!(parent: None, "sync");
                context.adopt(&span);
                span
            })
            .collect()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let mut contexts = self.traces.0.contexts.lock();
        contexts.remove(&self.at);
        self.traces.0.count.store(contexts.len(), Ordering::Relaxed);
    }
}

fn place(batch: &Bytes) -> usize {
    batch.as_ptr().addr()
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Traces({})", self.0.count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::command::{Command, Stamp};

    use super::*;
    use crate::types::LogId;

    fn entry(batch: &Bytes) -> Entry {
        let command = Command::Append {
            stamp: Stamp::default(),
            batch: batch.clone(),
        };
        Entry {
            log_id: LogId::new(1.into(), 1),
            payload: EntryPayload::Normal(command),
        }
    }

    fn context() -> TraceContext {
        let parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        TraceContext::parse(parent, None).unwrap()
    }

    #[test]
    fn a_batch_is_followed_until_nobody_holds_on_to_it_and_another_of_its_bytes_is_not() {
        let traces = Traces::default();
        let batch = Bytes::from(vec![1, 2, 3]);
        let same_bytes = Bytes::from(vec![1, 2, 3]);
        assert_eq!(traces.of(&entry(&batch)), None);
        let followed = traces.follow(&batch, context());
        assert_eq!(traces.of(&entry(&batch)), Some(context()));
        assert_eq!(traces.of(&entry(&same_bytes)), None);
        assert!(traces.follow(&batch, context()).is_none());
        drop(followed);
        assert_eq!(traces.of(&entry(&batch)), None);
    }

    #[test]
    fn no_more_batches_are_followed_than_there_is_room_for() {
        let traces = Traces::default();
        let batches: Vec<Bytes> = (0..=MOST).map(|_| Bytes::from(vec![1])).collect();
        let follow = |batch| traces.follow(batch, context());
        let mut followed: Vec<_> = batches.iter().filter_map(follow).collect();
        assert_eq!(followed.len(), MOST);
        followed.pop();
        assert!(follow(&batches[MOST]).is_some());
        drop(followed);
        assert_eq!(traces.0.count.load(Ordering::Relaxed), 0);
    }
}
