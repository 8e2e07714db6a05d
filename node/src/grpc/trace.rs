//! The broker's part of a trace: spans for requests that carry a sampled context. Other requests cost
//! nothing. A context is never looked for inside a batch.

use ropewalk_proto::batch::Header;
use ropewalk_proto::error::WireError;
use ropewalk_proto::headers::{TRACEPARENT, TRACESTATE};
use ropewalk_proto::trace::{TraceContext, shortened};
use ropewalk_proto::v1;
use tonic::metadata::MetadataMap;
use tracing::Span;
use tracing::field::Empty;

/// Creates the span of a batch, from its arrival to its answer.
pub(super) fn of_batch(request: &v1::ProduceRequest) -> Span {
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
pub(super) fn of_record(trace: &TraceContext, record: &v1::PublishRequest) -> Span {
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
pub(super) fn proposing(batch: &Span) -> Span {
    match batch.is_none() {
        true => Span::none(),
        false => tracing::info_span!(parent: batch, "propose"),
    }
}

/// Creates the span in which a majority writes the batch and the leader applies it.
pub(super) fn committing(batch: &Span) -> Span {
    match batch.is_none() {
        true => Span::none(),
        false => tracing::info_span!(parent: batch, "commit"),
    }
}

/// Records the outcome in a span.
pub(super) fn ended(span: &Span, offset: Result<u64, &WireError>) {
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

/// Returns the trace of a call that publishes a record, or else that of the record.
pub(super) fn of_call(metadata: &MetadataMap, record: &v1::PublishRequest) -> Option<TraceContext> {
    let value = |name| metadata.get(name).map(|value| value.as_bytes());
    if let Some(parent) = value(TRACEPARENT) {
        return sampled(parent, value(TRACESTATE));
    }
    let of_trace = |header: &&v1::Header| {
        header.key.ends_with(TRACEPARENT) || header.key.ends_with(TRACESTATE)
    };
    let headers = record.headers.iter().filter(of_trace).map(|header| Header {
        key: header.key.clone(),
        value: Some(header.value.clone()),
    });
    let trace = TraceContext::of_headers(&headers.collect::<Vec<_>>());
    trace.filter(TraceContext::is_sampled)
}

/// Adds the current span to a call to another node, or at least the trace that the request came with.
pub(super) fn pass_on(trace: TraceContext, metadata: &mut MetadataMap) {
    let trace = TraceContext::current().unwrap_or(trace);
    let mut put = |name, text: &str| {
        if let Ok(text) = text.parse() {
            metadata.insert(name, text);
        }
    };
    put(TRACEPARENT, &trace.to_string());
    if let Some(state) = trace.state() {
        put(TRACESTATE, state);
    }
}

fn sampled(parent: &[u8], state: Option<&[u8]>) -> Option<TraceContext> {
    TraceContext::parse(parent, state).filter(TraceContext::is_sampled)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const OWN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn record(headers: &[(&str, &str)]) -> v1::PublishRequest {
        let headers = headers.iter().map(|(key, value)| v1::Header {
            key: (*key).to_owned(),
            value: value.to_string().into(),
        });
        v1::PublishRequest {
            headers: headers.collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_call_without_a_trace_has_that_of_its_record() {
        let mut metadata = MetadataMap::new();
        let traced = record(&[("key", "value"), ("ce_traceparent", OWN)]);
        let found = |metadata: &MetadataMap, record: &v1::PublishRequest| {
            of_call(metadata, record).map(|trace| trace.to_string())
        };
        assert_eq!(found(&metadata, &traced), Some(OWN.to_owned()));
        assert_eq!(found(&metadata, &record(&[("key", "value")])), None);
        let unsampled = OWN.replace("-01", "-00");
        assert_eq!(
            found(&metadata, &record(&[(TRACEPARENT, &unsampled)])),
            None
        );
        metadata.insert(TRACEPARENT, unsampled.parse().unwrap());
        assert_eq!(found(&metadata, &traced), None, "whoever calls decides");
    }

    #[test]
    fn a_call_sent_on_belongs_to_the_span_it_is_sent_on_in() {
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::default();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let spans = tracing_subscriber::registry().with(layer);
        let mut metadata = MetadataMap::new();
        let trace = TraceContext::parse(OWN.as_bytes(), None).unwrap();
        tracing::subscriber::with_default(spans, || {
            let span = of_record(&trace, &record(&[]));
            let _within = span.enter();
            pass_on(trace.clone(), &mut metadata);
        });
        let sent_on = of_call(&metadata, &record(&[])).unwrap();
        assert_eq!(sent_on.trace_id(), trace.trace_id());
        assert_ne!(sent_on.span_id(), trace.span_id());
    }

    #[test]
    fn a_call_sent_on_takes_its_trace_along() {
        let mut metadata = MetadataMap::new();
        let trace = TraceContext::parse(OWN.as_bytes(), Some(b"vendor=1")).unwrap();
        pass_on(trace.clone(), &mut metadata);
        assert_eq!(of_call(&metadata, &record(&[])), Some(trace));
    }
}
