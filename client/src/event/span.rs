//! The span in which a record is handled, as a child of the span in which it was sent.

use ropewalk_proto::trace::{TraceContext, shortened};
use tracing::{Instrument, Span};

use super::cause::{Cause, handling};
use crate::group::Delivery;
use crate::record::{ConsumedRecord, Header};

impl ConsumedRecord {
    /// Creates a span for the handling of this record, with target `ropewalk_client` and level info. Its
    /// fields are the ids of the event and of its trace. With the feature `opentelemetry` and its layer
    /// installed, it is a child of the span in which the record was sent.
    pub fn span(&self) -> Span {
        span(self, None)
    }

    /// Runs `work` in response to this record, in its [`ConsumedRecord::span`]. Events that `work` sends
    /// inherit this record's correlation id and trace, and name it as their cause. Tasks that `work` spawns
    /// do not inherit them.
    pub async fn handle<F: Future>(&self, work: F) -> F::Output {
        let work = work.instrument(self.span());
        handling(Cause::of(self), work).await
    }
}

impl Delivery {
    /// Like [`ConsumedRecord::span`], with the topic.
    pub fn span(&self) -> Span {
        span(self, Some(self.topic()))
    }

    /// Like [`ConsumedRecord::handle`]. [`crate::Subscription::run_concurrent`] does this for each delivery.
    ///
    /// ```no_run
    /// # use futures_util::StreamExt;
    /// # async fn book(_: &ropewalk_client::ConsumedRecord) {}
    /// # async fn example(mut subscription: ropewalk_client::Subscription) -> ropewalk_client::Result<()> {
    /// while let Some(delivery) = subscription.next().await {
    ///     let delivery = delivery?;
    ///     delivery.handle(book(&delivery)).await;
    ///     delivery.ack();
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn handle<F: Future>(&self, work: F) -> F::Output {
        let work = work.instrument(self.span());
        handling(Cause::of(self), work).await
    }
}

fn span(record: &ConsumedRecord, topic: Option<&str>) -> Span {
    let span = tracing::info_span!(
        target: "ropewalk_client",
        "process",
        otel.kind = "consumer",
        messaging.system = "ropewalk",
        "messaging.operation.type" = "process",
        messaging.destination.name = topic,
        messaging.destination.partition.id = record.partition,
        messaging.offset = record.offset,
        event_id = tracing::field::Empty,
        event_type = tracing::field::Empty,
        correlation_id = tracing::field::Empty,
        trace_id = tracing::field::Empty,
    );
    if span.is_disabled() {
        return span;
    }
    let texts = [
        ("event_id", record.event_id()),
        ("event_type", record.event_type()),
        ("correlation_id", record.correlation_id()),
    ];
    for (name, text) in texts {
        span.record(name, text.map(shortened));
    }
    if let Some(trace) = record.trace_context() {
        span.record("trace_id", trace.trace_id());
        adopt(&trace, &span);
    }
    span
}

#[cfg(feature = "opentelemetry")]
fn adopt(trace: &TraceContext, span: &Span) {
    trace.adopt(span);
}

/// Does nothing: without OpenTelemetry, the ids are only fields.
#[cfg(not(feature = "opentelemetry"))]
fn adopt(_: &TraceContext, _: &Span) {}

/// The trace context of a record, if it is sampled.
pub(crate) fn sampled(headers: &[Header]) -> Option<Box<TraceContext>> {
    let trace = TraceContext::of_headers(headers);
    trace.filter(TraceContext::is_sampled).map(Box::new)
}
