//! The trace that a call belongs to: the one in its metadata, or in the record that it publishes.

use ropewalk_proto::batch::Header;
use ropewalk_proto::headers::{TRACEPARENT, TRACESTATE};
use ropewalk_proto::trace::TraceContext;
use ropewalk_proto::v1;
use tonic::metadata::MetadataMap;

use crate::service::trace::sampled;

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

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::service::forward::pass_on;
    use crate::service::trace::of_record;

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
