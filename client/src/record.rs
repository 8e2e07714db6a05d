//! Records as an application gives and gets them.

use bytes::Bytes;

use crate::event::Cause;

pub use ropewalk_proto::batch::Header;

/// A record to publish. A key decides the partition, and records of one key keep their order; a
/// record without one goes to any partition.
///
/// No value is not the same as an empty one: a record with a key and no value is a tombstone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) partition: Option<u32>,
    /// Whether it is to get what its event lacks.
    pub(crate) is_event: bool,
    /// What it is published in answer to.
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

    /// Adds headers, those without a value too. Names may repeat; the order is kept.
    #[must_use]
    pub fn headers(mut self, headers: impl IntoIterator<Item = Header>) -> Record {
        self.headers.extend(headers);
        self
    }

    /// Sets the time of the record, in ms since 1970; without it, it is the time of the send.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Record {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Sends the record to this partition, whatever its key says.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Record {
        self.partition = Some(partition);
        self
    }

    /// What it takes of a producer's memory, in bytes: its content, and the parts that go with it.
    pub(crate) fn memory_bytes(&self) -> usize {
        let bytes_len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter();
        let headers: usize = headers
            .map(|header| header.key.len() + bytes_len(&header.value) + HEADER_OVERHEAD_BYTES)
            .sum();
        RECORD_OVERHEAD_BYTES + bytes_len(&self.key) + bytes_len(&self.value) + headers
    }
}

/// What the encoding of a record takes at most beside its content.
const RECORD_OVERHEAD_BYTES: usize = 32;
/// What the encoding of a header takes at most beside its content.
const HEADER_OVERHEAD_BYTES: usize = 10;

/// Where a published record lies. It is on the disks of a majority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt {
    /// Its partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// Its time in ms since 1970.
    pub timestamp_ms: i64,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Its partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// Its time in ms since 1970.
    pub timestamp_ms: i64,
    /// Its key; none is not the same as empty.
    pub key: Option<Bytes>,
    /// Its value; none is a tombstone, not the same as empty.
    pub value: Option<Bytes>,
    /// Its headers, in the order given; names may repeat.
    pub headers: Vec<Header>,
}

impl ConsumedRecord {
    /// What it holds, in bytes.
    pub(crate) fn content_bytes(&self) -> usize {
        let bytes_len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter();
        let headers: usize = headers
            .map(|header| header.key.len() + bytes_len(&header.value))
            .sum();
        bytes_len(&self.key) + bytes_len(&self.value) + headers
    }
}

/// A place in a partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offset {
    /// The first record there still is.
    Beginning,
    /// After the last record there is now: only what comes later.
    End,
    /// This offset.
    At(u64),
    /// The first record at or after this time, in ms since 1970; the end if there is none.
    Time(i64),
}
