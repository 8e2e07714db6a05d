//! Events: records with headers for their type, their correlation and their cause, under agreed names
//! (`ropewalk_proto::headers`). This module creates and reads them, and follows them through handlers. It
//! must never look into a record's value.

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
    /// Creates an event of this type, as in `com.example.flight.landed`.
    ///
    /// The client adds missing headers when it sends the event: an id, the client's source, the time, and a
    /// correlation id. In a handler, the event inherits the correlation id of the handled event, and records
    /// that event as its cause. Otherwise the correlation id is the event's own id.
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

    /// Sets the source of the event, a URI reference, in place of the client's source.
    #[must_use]
    pub fn source(self, source: impl Into<String>) -> Record {
        self.set(headers::EVENT_SOURCE, source.into())
    }

    /// Sets the media type of the value.
    #[must_use]
    pub fn content_type(self, media_type: impl Into<String>) -> Record {
        self.set(headers::CONTENT_TYPE, media_type.into())
    }

    /// Sets the correlation id, regardless of the record's cause.
    #[must_use]
    pub fn correlation_id(self, id: impl Into<String>) -> Record {
        self.set(headers::CORRELATION_ID, id.into())
    }

    /// Marks the record as a response to this one: copies its event id as the causation id, and its
    /// correlation id. If there is no OpenTelemetry context at the time of the send, also copies its trace
    /// context.
    #[must_use]
    pub fn caused_by(mut self, cause: &ConsumedRecord) -> Record {
        self.cause = Cause::of(cause);
        self
    }

    /// Sets the header of this name; removes others of the name.
    fn set(mut self, name: &str, value: impl Into<Bytes>) -> Record {
        self.headers.retain(|header| header.key != name);
        self.headers.push(Header {
            key: name.to_owned(),
            value: Some(value.into()),
        });
        self
    }

    /// Sets a header unless it is present.
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
