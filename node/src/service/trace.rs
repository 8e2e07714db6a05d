//! The broker's part of a trace: spans for requests that carry a sampled context. Other requests cost
//! nothing. A context is never looked for inside a batch.

use ropewalk_proto::error::WireError;
use ropewalk_proto::trace::{TraceContext, shortened};
use ropewalk_proto::v1;
use tracing::Span;
use tracing::field::Empty;

/// Creates the span of a batch, from its arrival to its answer.
pub fn of_batch(request: &v1::ProduceRequest) -> Span {
    if request.traceparent.is_empty() {
        return Span::none();
    }
    let state = Some(request.tracestate.as_bytes());
    let Some(trace) = sampled(request.traceparent.as_bytes(), state) else {
        return Span::none();
    };
    let span = tracing::info_span!(
        parent: None,
        "produce",
        otel.kind = "server",
        otel.status_code = Empty,
        otel.status_description = Empty,
        messaging.system = "ropewalk",
        messaging.destination.name = shortened(&request.topic),
        messaging.destination.partition.id = request.partition,
        messaging.message.envelope.size = request.batch.len(),
        messaging.offset = Empty,
        trace_id = trace.trace_id(),
    );
    trace.adopt(&span);
    span
}

/// Creates the span of a single record.
pub fn of_record(trace: &TraceContext, record: &v1::PublishRequest) -> Span {
    let span = tracing::info_span!(
        parent: None,
        "publish",
        otel.kind = "server",
        otel.status_code = Empty,
        otel.status_description = Empty,
        messaging.system = "ropewalk",
        messaging.destination.name = shortened(&record.topic),
        messaging.offset = Empty,
        trace_id = trace.trace_id(),
    );
    trace.adopt(&span);
    span
}

/// Creates the span of checking a batch and proposing it to its partition's log.
pub fn proposing(batch: &Span) -> Span {
    match batch.is_none() {
        true => Span::none(),
        false => tracing::info_span!(parent: batch, "propose"),
    }
}

/// Creates the span in which a majority writes the batch and the leader applies it.
pub fn committing(batch: &Span) -> Span {
    match batch.is_none() {
        true => Span::none(),
        false => tracing::info_span!(parent: batch, "commit"),
    }
}

/// Records the outcome in a span.
pub fn ended(span: &Span, offset: Result<u64, &WireError>) {
    if span.is_none() {
        return;
    }
    match offset {
        Ok(offset) => span.record("messaging.offset", offset),
        Err(error) => {
            span.record("otel.status_code", "ERROR");
            span.record("otel.status_description", shortened(&error.to_string()))
        }
    };
}

/// Returns the context of a request, if it is sampled.
pub fn sampled(parent: &[u8], state: Option<&[u8]>) -> Option<TraceContext> {
    TraceContext::parse(parent, state).filter(TraceContext::is_sampled)
}
