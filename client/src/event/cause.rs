//! The cause of a record: the ids and the trace that a record passes on to the records published in response
//! to it. Also keeps the record that the current task handles.

use std::sync::Arc;

use bytes::Bytes;
use ropewalk_proto::headers;
use ropewalk_proto::trace::TraceContext;

use crate::record::{ConsumedRecord, Header};

tokio::task_local! {
    /// The cause of everything that this task publishes.
    static HANDLED: Cause;
}

/// The data that a record passes on. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause(Arc<Passed>);

#[derive(Debug, PartialEq, Eq)]
struct Passed {
    event_id: Option<Bytes>,
    correlation_id: Option<Bytes>,
    trace: Option<TraceContext>,
}

impl Cause {
    /// The cause that a record forms; none if it has nothing to pass on.
    pub fn of(record: &ConsumedRecord) -> Option<Cause> {
        if record.headers.is_empty() {
            return None;
        }
        let event_id = value(&record.headers, headers::EVENT_ID);
        let correlation_id = value(&record.headers, headers::CORRELATION_ID);
        let passed = Passed {
            correlation_id: correlation_id.or_else(|| event_id.clone()),
            event_id,
            trace: record.trace_context(),
        };
        let something = passed.correlation_id.is_some() || passed.trace.is_some();
        something.then(|| Cause(Arc::new(passed)))
    }

    /// The cause from the record that this task handles.
    pub fn handled() -> Option<Cause> {
        HANDLED.try_with(Cause::clone).ok()
    }

    /// Id of the causing event.
    pub fn event_id(&self) -> Option<Bytes> {
        self.0.event_id.clone()
    }

    /// Correlation id that the caused records inherit.
    pub fn correlation_id(&self) -> Option<Bytes> {
        self.0.correlation_id.clone()
    }

    pub fn trace(&self) -> Option<&TraceContext> {
        self.0.trace.as_ref()
    }
}

/// Runs the handler of a record, with the record as cause.
pub(crate) async fn handling<F: Future>(cause: Option<Cause>, work: F) -> F::Output {
    match cause {
        Some(cause) => HANDLED.scope(cause, work).await,
        None => work.await,
    }
}

fn value(headers: &[Header], name: &str) -> Option<Bytes> {
    let mut named = headers.iter().filter(|header| header.key == name);
    named.find_map(|header| header.value.clone())
}
