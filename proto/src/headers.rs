//! The names of the headers that make a record an event, say what it belongs to, and carry its trace.
//! Everybody who writes or reads one takes its name from here. What a header means is decided
//! elsewhere.
//!
//! Those of an event are of the [Kafka protocol binding of CloudEvents], in its binary mode: the
//! record's value is the event's data, and each attribute is a header. The trace context is
//! [W3C's], under its own names, since that is where instrumented Kafka clients look for it, too.
//! The ids of correlation and causation have no standard; these are the names in common use.
//!
//! [Kafka protocol binding of CloudEvents]: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
//! [W3C's]: https://www.w3.org/TR/trace-context/

use crate::batch::Header;

/// The id of the event; with the source, unlike that of any other event.
pub const EVENT_ID: &str = "ce_id";
/// What kind of event it is.
pub const EVENT_TYPE: &str = "ce_type";
/// Where it happened, a URI reference.
pub const EVENT_SOURCE: &str = "ce_source";
/// When it happened, as RFC 3339 writes it.
pub const EVENT_TIME: &str = "ce_time";
/// The version of CloudEvents that the other headers are of: [`SPEC_VERSION_1_0`].
pub const SPEC_VERSION: &str = "ce_specversion";
/// The only version there is.
pub const SPEC_VERSION_1_0: &str = "1.0";
/// The media type of the value.
pub const CONTENT_TYPE: &str = "content-type";

/// Whose trace the record belongs to, and the span it was sent in.
pub const TRACEPARENT: &str = "traceparent";
/// What tracing systems add to that.
pub const TRACESTATE: &str = "tracestate";
/// Where other CloudEvents libraries put the trace context; it is read there, but not written.
pub const EVENT_TRACEPARENT: &str = "ce_traceparent";
/// As [`EVENT_TRACEPARENT`].
pub const EVENT_TRACESTATE: &str = "ce_tracestate";

/// The same for all events that one of them has led to.
pub const CORRELATION_ID: &str = "correlation-id";
/// The id of the event that this one was published in answer to.
pub const CAUSATION_ID: &str = "causation-id";

/// The value of the first header of this name that has one.
pub fn find<'a>(headers: &'a [Header], name: &str) -> Option<&'a [u8]> {
    let mut named = headers.iter().filter(|header| header.key == name);
    named.find_map(|header| header.value.as_deref())
}
