//! Names of the record headers that make a record an event, relate it to others, and carry its trace. All
//! code that writes or reads such a header takes its name from here. The meaning of headers is defined
//! elsewhere.
//!
//! Event headers follow the [Kafka protocol binding of CloudEvents], in binary mode: the record's value is
//! the event's data, and each attribute is a header. The trace context is [W3C's], under its own names,
//! since instrumented Kafka clients look for it there, too. The ids of correlation and causation have no
//! standard; these names are in common use.
//!
//! [Kafka protocol binding of CloudEvents]: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
//! [W3C's]: https://www.w3.org/TR/trace-context/

use crate::batch::Header;

/// Id of the event. Together with the source, it differs from that of any other event.
pub const EVENT_ID: &str = "ce_id";
/// Type of the event.
pub const EVENT_TYPE: &str = "ce_type";
/// Source of the event, a URI reference.
pub const EVENT_SOURCE: &str = "ce_source";
/// Time of the event, in the format of RFC 3339.
pub const EVENT_TIME: &str = "ce_time";
/// CloudEvents version of the other headers: [`SPEC_VERSION_1_0`].
pub const SPEC_VERSION: &str = "ce_specversion";
/// The only version.
pub const SPEC_VERSION_1_0: &str = "1.0";
/// The media type of the value.
pub const CONTENT_TYPE: &str = "content-type";

/// Trace that the record belongs to, and the span in which it was sent.
pub const TRACEPARENT: &str = "traceparent";
/// Additions of tracing systems to the trace context.
pub const TRACESTATE: &str = "tracestate";
/// Trace context as other CloudEvents libraries name it. It is read, but not written.
pub const EVENT_TRACEPARENT: &str = "ce_traceparent";
/// Like [`EVENT_TRACEPARENT`], for the trace state.
pub const EVENT_TRACESTATE: &str = "ce_tracestate";

/// Id that is the same for all events that one of them has led to.
pub const CORRELATION_ID: &str = "correlation-id";
/// Id of the event to which this one responds.
pub const CAUSATION_ID: &str = "causation-id";

/// Value of the first header of this name that has one.
pub fn find<'a>(headers: &'a [Header], name: &str) -> Option<&'a [u8]> {
    let mut named = headers.iter().filter(|header| header.key == name);
    named.find_map(|header| header.value.as_deref())
}
