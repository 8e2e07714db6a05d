//! Trace contexts of sampled batches on their way to other nodes: a replica's work on them belongs to their
//! trace.

use ropewalk_proto::trace::TraceContext;
use ropewalk_proto::v1;
use ropewalk_raft_store::Traces;
use ropewalk_raft_store::types::Entry;
use tracing::Span;

/// Adds the trace context of each sampled entry to the message.
pub(super) fn pass_on(traces: &Traces, entries: &[Entry], wire: &mut [v1::Entry]) {
    for (entry, wire) in entries.iter().zip(wire) {
        if let Some(context) = traces.of(entry) {
            wire.traceparent = context.to_string();
        }
    }
}

/// The spans of a leader's sampled entries, until the entries are on the disk here and answered.
pub(super) fn replicating(entries: &[v1::Entry]) -> Vec<Span> {
    let traced = entries.iter().filter(|entry| !entry.traceparent.is_empty());
    let contexts =
        traced.filter_map(|entry| TraceContext::parse(entry.traceparent.as_bytes(), None));
    contexts
        .filter(TraceContext::is_sampled)
        .map(|context| {
            let span = tracing::info_span!(
                parent: None,
                "replicate",
                otel.kind = "server",
                messaging.system = "ropewalk",
                trace_id = context.trace_id(),
            );
            context.adopt(&span);
            span
        })
        .collect()
}
