//! Records, as an application publishes and receives them.

use std::time::SystemTime;

use bytes::Bytes;

use crate::event::Cause;
use crate::timestamp::{from_ms, to_ms};

pub use ropewalk_proto::batch::Header;

/// A record to publish. Its key decides the partition, and records with the same key keep their order. A
/// record without a key goes to any partition.
///
/// A missing value differs from an empty one: a record with a key and no value is a tombstone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) partition: Option<u32>,
    /// The client completes the event headers when it sends the record.
    pub(crate) is_event: bool,
    /// The cause: the record in response to which this one is published.
    pub(crate) cause: Option<Cause>,
}

impl Record {
    /// A record with neither key nor value.
    pub fn new() -> Record {
        Record::default()
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Record {
        self.key = Some(key.into());
        self
    }

    /// Sets the value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Record {
        self.value = Some(value.into());
        self
    }

    /// Adds a header. Names may repeat; the order is kept.
    #[must_use]
    pub fn header(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Record {
        self.headers.push(Header {
            key: key.into(),
            value: Some(value.into()),
        });
        self
    }

    /// Adds headers, including those without a value. Names may repeat; the order is kept.
    #[must_use]
    pub fn headers(mut self, headers: impl IntoIterator<Item = Header>) -> Record {
        self.headers.extend(headers);
        self
    }

    /// Sets the timestamp, which has a resolution of 1 ms. The default is the time of the send.
    #[must_use]
    pub fn timestamp(self, time: SystemTime) -> Record {
        self.timestamp_ms(to_ms(time))
    }

    /// Sets the timestamp, in ms since 1970. The default is the time of the send.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Record {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Sends the record to this partition, regardless of its key.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Record {
        self.partition = Some(partition);
        self
    }

    /// Bytes of the producer's memory that the record takes: its content and its encoding overhead.
    pub(crate) fn memory_bytes(&self) -> usize {
        let bytes_len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter();
        let headers: usize = headers
            .map(|header| header.key.len() + bytes_len(&header.value) + HEADER_OVERHEAD_BYTES)
            .sum();
        RECORD_OVERHEAD_BYTES + bytes_len(&self.key) + bytes_len(&self.value) + headers
    }
}

/// Maximum encoding overhead of a record.
const RECORD_OVERHEAD_BYTES: usize = 32;
/// Maximum encoding overhead of a header.
const HEADER_OVERHEAD_BYTES: usize = 10;

/// Position of a published record. A majority of the replicas has synced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordMetadata {
    /// Partition of the record.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: u64,
    /// Timestamp in ms since 1970.
    pub timestamp_ms: i64,
}

impl RecordMetadata {
    /// Timestamp of the record. One that the operating system cannot represent becomes a time on the same
    /// side of 1970.
    pub fn timestamp(&self) -> SystemTime {
        from_ms(self.timestamp_ms)
    }
}

/// A record read from a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Partition of the record.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: u64,
    /// Timestamp in ms since 1970.
    pub timestamp_ms: i64,
    /// The key; a missing key differs from an empty one.
    pub key: Option<Bytes>,
    /// The value; a missing value is a tombstone and differs from an empty one.
    pub value: Option<Bytes>,
    /// The headers in their original order; names may repeat.
    pub headers: Vec<Header>,
}

impl ConsumedRecord {
    /// Timestamp of the record. One that the operating system cannot represent becomes a time on the same
    /// side of 1970.
    pub fn timestamp(&self) -> SystemTime {
        from_ms(self.timestamp_ms)
    }

    /// Size of the key, value and headers, in bytes.
    pub(crate) fn content_bytes(&self) -> usize {
        let bytes_len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter();
        let headers: usize = headers
            .map(|header| header.key.len() + bytes_len(&header.value))
            .sum();
        bytes_len(&self.key) + bytes_len(&self.value) + headers
    }
}

/// A position in a partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offset {
    /// The first record in the log.
    Beginning,
    /// The end of the log: only records published from now on.
    End,
    /// This offset.
    At(u64),
    /// The first record with this timestamp or a later one, in ms since 1970; the end if there is none.
    TimestampMs(i64),
}

impl Offset {
    /// The first record with this timestamp or a later one; the end if there is none.
    pub fn timestamp(time: SystemTime) -> Offset {
        Offset::TimestampMs(to_ms(time))
    }
}
