//! Conversion of contexts to and from OpenTelemetry, through its layer for `tracing` spans. Without that
//! layer nothing happens, and no context is invented.

use std::str::FromStr;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::TraceContext;

impl TraceContext {
    /// Context of the current `tracing` span, or else OpenTelemetry's own current context.
    pub fn current() -> Option<TraceContext> {
        let of_span = Span::current().context();
        TraceContext::of(of_span.span().span_context())
            .or_else(|| TraceContext::of(Context::current().span().span_context()))
    }

    /// Makes a span that was not entered yet a child of this context.
    pub fn adopt(&self, span: &Span) {
        let state = self.state().map(TraceState::from_str);
        let context = SpanContext::new(
            TraceId::from_bytes(self.trace_id),
            SpanId::from_bytes(self.span_id),
            TraceFlags::new(self.flags),
            true,
            // A state that OpenTelemetry can't read is left out.
            state.and_then(Result::ok).unwrap_or_default(),
        );
        // It fails if there is no layer, or if the span is not recorded: then there is nothing to do.
        let _ = span.set_parent(Context::new().with_remote_span_context(context));
    }

    fn of(context: &SpanContext) -> Option<TraceContext> {
        let state = context.trace_state().header();
        context.is_valid().then(|| TraceContext {
            trace_id: context.trace_id().to_bytes(),
            span_id: context.span_id().to_bytes(),
            flags: context.trace_flags().to_u8(),
            state: super::state(state.as_bytes()),
        })
    }
}
