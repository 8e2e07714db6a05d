//! Event headers of a record that was read. The input is untrusted: malformed headers count as missing.

use std::time::SystemTime;

use ropewalk_proto::headers;
use ropewalk_proto::trace::TraceContext;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::record::ConsumedRecord;
use crate::timestamp::from_ms;

impl ConsumedRecord {
    /// The value of the first header of this name that has a value.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        headers::find(&self.headers, name)
    }

    /// The id of the event.
    pub fn event_id(&self) -> Option<&str> {
        self.text(headers::EVENT_ID)
    }

    /// The type of the event.
    pub fn event_type(&self) -> Option<&str> {
        self.text(headers::EVENT_TYPE)
    }

    /// The source of the event.
    pub fn event_source(&self) -> Option<&str> {
        self.text(headers::EVENT_SOURCE)
    }

    /// The time of the event, as its header states it, to the ms.
    pub fn event_time(&self) -> Option<SystemTime> {
        self.event_time_ms().map(from_ms)
    }

    /// The time of the event, as its header states it, in ms since 1970.
    pub fn event_time_ms(&self) -> Option<i64> {
        let time = OffsetDateTime::parse(self.text(headers::EVENT_TIME)?, &Rfc3339).ok()?;
        i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
    }

    /// The correlation id of the event.
    pub fn correlation_id(&self) -> Option<&str> {
        self.text(headers::CORRELATION_ID)
    }

    /// The id of the event that caused this one.
    pub fn causation_id(&self) -> Option<&str> {
        self.text(headers::CAUSATION_ID)
    }

    /// The trace context in which the record was sent.
    pub fn trace_context(&self) -> Option<TraceContext> {
        TraceContext::of_headers(&self.headers)
    }

    fn text(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.header(name)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::Header;

    fn record(headers: &[(&str, Option<&[u8]>)]) -> ConsumedRecord {
        let headers = headers.iter().map(|(key, value)| Header {
            key: (*key).to_owned(),
            value: value.map(Bytes::copy_from_slice),
        });
        ConsumedRecord {
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: headers.collect(),
        }
    }

    #[test]
    fn what_is_malformed_is_not_there() {
        let wrong = record(&[
            ("ce_id", Some(b"\xff")),
            ("ce_time", Some(b"yesterday")),
            ("traceparent", Some(b"00-1-2-3")),
            ("correlation-id", None),
        ]);
        assert_eq!(wrong.event_id(), None);
        assert_eq!(wrong.event_time_ms(), None);
        assert_eq!(wrong.trace_context(), None);
        assert_eq!(wrong.correlation_id(), None);
        assert_eq!(wrong.header("ce_id"), Some(&b"\xff"[..]));
    }

    #[test]
    fn of_several_headers_of_a_name_the_first_with_a_value_counts() {
        let twice = record(&[
            ("ce_type", None),
            ("ce_type", Some(b"landed")),
            ("ce_type", Some(b"crashed")),
            ("ce_time", Some(b"2026-01-31T01:00:00.1234+01:00")),
        ]);
        assert_eq!(twice.event_type(), Some("landed"));
        assert_eq!(twice.event_time_ms(), Some(1_769_817_600_123));
    }
}
