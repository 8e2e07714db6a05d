//! Events: records that say what they are, what they belong to, and what they were published in answer
//! to, in headers under agreed names (`ropewalk_proto::headers`). Here they are put together, taken
//! apart, and followed through handlers. What is in a record's value must never be looked at.

mod cause;
mod complete;
mod read;
mod span;

pub(crate) use cause::{Cause, handling};
pub(crate) use complete::new_event_id;
pub(crate) use span::sampled;

use bytes::Bytes;
use ropewalk_proto::headers;

use crate::record::{ConsumedRecord, Header, Record};

impl Record {
    /// An event of this type, as in `com.example.flight.landed`.
    ///
    /// What it lacks it gets when it is sent: an id, the client's source, its time, and a correlation
    /// id. That is the one of the event that is being handled, if it is sent from a handler, which is
    /// then noted as its cause, too; otherwise it is the event's own id.
    ///
    /// ```
    /// # use ropewalk_client::{ConsumedRecord, Record};
    /// # fn example(landed: &ConsumedRecord) -> Record {
    /// Record::event("com.example.bag.unloaded")
    ///     .key("N14228")
    ///     .content_type("application/json")
    ///     .value(r#"{"bags":61}"#)
    ///     .caused_by(landed)
    /// # }
    /// ```
    pub fn event(event_type: impl Into<String>) -> Record {
        let record = Record {
            is_event: true,
            ..Record::default()
        };
        record.set(headers::EVENT_TYPE, event_type.into())
    }

    /// Sets the id of the event, in place of a new one. An event that is published again keeps its id.
    #[must_use]
    pub fn event_id(self, id: impl Into<String>) -> Record {
        self.set(headers::EVENT_ID, id.into())
    }

    /// Sets where the event happened, a URI reference, in place of the client's source.
    #[must_use]
    pub fn source(self, source: impl Into<String>) -> Record {
        self.set(headers::EVENT_SOURCE, source.into())
    }

    /// Sets the media type of the value.
    #[must_use]
    pub fn content_type(self, media_type: impl Into<String>) -> Record {
        self.set(headers::CONTENT_TYPE, media_type.into())
    }

    /// Sets what the record belongs to, whatever it was caused by.
    #[must_use]
    pub fn correlation_id(self, id: impl Into<String>) -> Record {
        self.set(headers::CORRELATION_ID, id.into())
    }

    /// The record is published in answer to this one: it notes the id of that event, and carries its
    /// correlation id on. Where no OpenTelemetry context is at hand when it is sent, it carries that
    /// record's trace context on, too.
    #[must_use]
    pub fn caused_by(mut self, cause: &ConsumedRecord) -> Record {
        self.cause = Cause::of(cause);
        self
    }

    /// Sets the only header of this name.
    fn set(mut self, name: &str, value: impl Into<Bytes>) -> Record {
        self.headers.retain(|header| header.key != name);
        self.headers.push(Header {
            key: name.to_owned(),
            value: Some(value.into()),
        });
        self
    }

    /// Sets a header that is not there yet.
    fn set_if_none(self, name: &str, value: impl FnOnce() -> Option<Bytes>) -> Record {
        if self.headers.iter().any(|header| header.key == name) {
            return self;
        }
        match value() {
            Some(value) => self.set(name, value),
            None => self,
        }
    }

    fn get(&self, name: &str) -> Option<Bytes> {
        let mut named = self.headers.iter().filter(|header| header.key == name);
        named.find_map(|header| header.value.clone())
    }
}
