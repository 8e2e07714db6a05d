//! Completion of a record when it is sent: adds missing event headers and the current trace.

use bytes::Bytes;
use ropewalk_proto::headers;
use ropewalk_proto::trace::TraceContext;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use uuid::Builder;

use super::cause::Cause;
use crate::client::Inner;
use crate::record::Record;

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A unique event id: a UUID of version 7, so that ids sort by time.
pub(crate) fn new_event_id(client: &Inner) -> String {
    event_id(client.clock.now_ms(), client.draw(), client.draw())
}

fn event_id(now_ms: i64, first: u64, second: u64) -> String {
    let mut random = [0; 10];
    let drawn = first.to_be_bytes().into_iter().chain(second.to_be_bytes());
    for (byte, drawn) in random.iter_mut().zip(drawn) {
        *byte = drawn;
    }
    let now_ms = u64::try_from(now_ms).unwrap_or(0);
    let id = Builder::from_unix_timestamp_millis(now_ms, &random).into_uuid();
    id.hyphenated().to_string()
}

/// Formats a timestamp as RFC 3339; none if it is outside the calendar.
fn time_text(timestamp_ms: i64) -> Option<Bytes> {
    let nanos = i128::from(timestamp_ms) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    Some(time.format(&TIME).ok()?.into())
}

impl Record {
    /// Completes the record for a send by this client now.
    pub(crate) fn complete(mut self, client: &Inner) -> Record {
        let given = self.cause.take();
        let cause = match given {
            Some(cause) => {
                self = self.set_if_none(headers::CAUSATION_ID, || cause.event_id());
                self = self.set_if_none(headers::CORRELATION_ID, || cause.correlation_id());
                Some(cause)
            }
            None => Cause::handled(),
        };
        if self.is_event {
            self = self.complete_event(client, cause.as_ref());
        }
        self.carry_trace(cause.as_ref())
    }

    fn complete_event(mut self, client: &Inner, cause: Option<&Cause>) -> Record {
        let now_ms = || client.clock.now_ms();
        let timestamp_ms = *self.timestamp_ms.get_or_insert_with(now_ms);
        let record = self
            .set_if_none(headers::EVENT_ID, || Some(new_event_id(client).into()))
            .set_if_none(headers::EVENT_SOURCE, || Some(client.source.clone()))
            .set_if_none(headers::EVENT_TIME, || time_text(timestamp_ms))
            .set_if_none(headers::SPEC_VERSION, || {
                Some(headers::SPEC_VERSION_1_0.into())
            });
        let own = record.get(headers::EVENT_ID);
        record
            .set_if_none(headers::CAUSATION_ID, || cause?.event_id())
            .set_if_none(headers::CORRELATION_ID, || {
                cause.and_then(Cause::correlation_id).or(own)
            })
    }

    /// Adds the trace context of the send, unless the record has one.
    fn carry_trace(self, cause: Option<&Cause>) -> Record {
        let has_one = self.get(headers::TRACEPARENT).is_some();
        let passed_on = || cause?.trace().cloned();
        match current_trace().or_else(passed_on) {
            Some(trace) if !has_one => {
                let record = self.set(headers::TRACEPARENT, trace.to_string());
                match trace.state() {
                    Some(state) => record.set(headers::TRACESTATE, state.to_owned()),
                    None => record,
                }
            }
            _ => self,
        }
    }
}

#[cfg(feature = "opentelemetry")]
fn current_trace() -> Option<TraceContext> {
    TraceContext::current()
}

/// Returns none: there is no context without OpenTelemetry.
#[cfg(not(feature = "opentelemetry"))]
fn current_trace() -> Option<TraceContext> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_7_and_sort_by_their_time() {
        let id = event_id(1_700_000_000_000, u64::MAX, 0);
        assert_eq!(id, "018bcfe5-6800-7fff-bfff-ffffffff0000");
        assert!(event_id(1_700_000_000_001, 0, 0) > id);
        assert_eq!(
            event_id(-1, 0, 0),
            "00000000-0000-7000-8000-000000000000",
            "a clock before 1970 stops nobody"
        );
    }

    #[test]
    fn times_are_written_as_rfc_3339_does_where_the_calendar_has_them() {
        let text = time_text(1_769_817_600_123).unwrap();
        assert_eq!(text, "2026-01-31T00:00:00.123Z");
        assert_eq!(time_text(i64::MAX), None);
    }
}
