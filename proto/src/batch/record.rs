//! The records inside a batch: lengths and deltas as zig-zag varints, key, value and headers.
//!
//! A record is `length, attributes, timestamp delta, offset delta, key, value, headers`. A byte string is
//! its length (-1 for none) and its bytes. Headers are their count and pairs of strings. Counts and lengths
//! are unverified until the bytes are read, so no memory is allocated by them.

use bytes::{BufMut, Bytes};

use super::BatchError;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Offset relative to the batch's base offset.
    pub offset_delta: i32,
    /// Timestamp, ms since 1970.
    pub timestamp_ms: i64,
    /// Key, which determines partition and order; `None` is not the same as empty.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone, not the same as empty.
    pub value: Option<Bytes>,
    /// Headers, in the order given; keys may repeat.
    pub headers: Vec<Header>,
}

/// One header of a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Header {
    /// Name of the header.
    pub key: String,
    /// Value of the header; `None` is not the same as empty.
    pub value: Option<Bytes>,
}

/// Smallest record: seven fields of one byte each.
const MIN_RECORD_BYTES: usize = 7;

/// Iterator over the records of a batch. It ends after an error.
#[derive(Debug, Clone)]
pub struct Records {
    payload: Bytes,
    at: usize,
    index: usize,
    count: usize,
    next_delta: i32,
    last_offset_delta: i32,
    base_timestamp_ms: i64,
}

impl Records {
    pub(super) fn new(
        payload: Bytes,
        count: i32,
        last_offset_delta: i32,
        base_timestamp_ms: i64,
    ) -> Records {
        Records {
            payload,
            at: 0,
            index: 0,
            count: usize::try_from(count).unwrap_or(0),
            next_delta: 0,
            last_offset_delta,
            base_timestamp_ms,
        }
    }

    /// Length of all records together, uncompressed.
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }

    /// The uncompressed bytes of the records, and the position up to which they were read.
    pub(super) fn read_to(&self) -> (&Bytes, usize) {
        (&self.payload, self.at)
    }

    fn read(&mut self) -> Result<Record, BatchError> {
        let index = self.index;
        let fault = |what| BatchError::Record { index, what };
        let mut rest = &self.payload[self.at..];
        let raw = RawRecord::parse(&mut rest).map_err(fault)?;
        // A compacted batch has gaps: deltas rise, but not always by one.
        if raw.offset_delta < self.next_delta || raw.offset_delta > self.last_offset_delta {
            return Err(fault("its offset delta is out of order"));
        }
        let record = Record {
            offset_delta: raw.offset_delta,
            timestamp_ms: self.base_timestamp_ms.wrapping_add(raw.timestamp_delta_ms),
            key: raw.key.map(|key| self.payload.slice_ref(key)),
            value: raw.value.map(|value| self.payload.slice_ref(value)),
            headers: raw.headers(&self.payload).map_err(fault)?,
        };
        self.at = self.payload.len() - rest.len();
        self.index += 1;
        self.next_delta = raw.offset_delta.saturating_add(1);
        Ok(record)
    }

    fn finish(&mut self) -> Option<Result<Record, BatchError>> {
        let bytes = self.payload.len() - self.at;
        self.at = self.payload.len();
        (bytes > 0).then_some(Err(BatchError::TrailingBytes { bytes }))
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index == self.count {
            return self.finish();
        }
        let record = self.read();
        if record.is_err() {
            self.count = self.index;
            self.at = self.payload.len();
        }
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let possible = (self.payload.len() - self.at) / MIN_RECORD_BYTES;
        (0, Some((self.count - self.index).min(possible) + 1))
    }
}

/// Header fields that describe the records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stated {
    pub count: i32,
    pub base_timestamp_ms: i64,
    pub max_timestamp_ms: i64,
}

/// Checks records from a producer against their header: the count, offset deltas 0, 1, 2 …, no bytes after
/// them, the latest timestamp, and no timestamp past `latest_ms`.
pub(super) fn validate(
    mut payload: &[u8],
    stated: Stated,
    latest_ms: i64,
) -> Result<(), BatchError> {
    let mut max_timestamp_ms = i64::MIN;
    for offset_delta in 0..stated.count {
        let index = usize::try_from(offset_delta).unwrap_or(0);
        let fault = |what| BatchError::Record { index, what };
        let raw = RawRecord::parse(&mut payload).map_err(fault)?;
        if raw.offset_delta != offset_delta {
            return Err(fault("its offset delta is out of order"));
        }
        raw.for_each_header(|_, _| {}).map_err(fault)?;
        // Readers compute timestamps the same way.
        let base_ms = stated.base_timestamp_ms;
        let timestamp_ms = base_ms.wrapping_add(raw.timestamp_delta_ms);
        if timestamp_ms > latest_ms {
            return Err(BatchError::TooFarAhead {
                index,
                timestamp_ms,
                latest_ms,
            });
        }
        max_timestamp_ms = max_timestamp_ms.max(timestamp_ms);
    }
    if !payload.is_empty() {
        return Err(BatchError::TrailingBytes {
            bytes: payload.len(),
        });
    }
    if max_timestamp_ms != stated.max_timestamp_ms {
        return Err(BatchError::MaxTimestamp {
            stated_ms: stated.max_timestamp_ms,
            actual_ms: max_timestamp_ms,
        });
    }
    Ok(())
}

type Fault = &'static str;

/// A record in place. Its headers are not parsed yet.
struct RawRecord<'a> {
    timestamp_delta_ms: i64,
    offset_delta: i32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    header_count: i32,
    header_bytes: &'a [u8],
}

impl<'a> RawRecord<'a> {
    fn parse(payload: &mut &'a [u8]) -> Result<RawRecord<'a>, Fault> {
        let length = read_varint(payload)?;
        let length = usize::try_from(length).map_err(|_| "its length is negative")?;
        let mut body = take(payload, length)?;
        take(&mut body, 1)?; // attributes, which have no meaning yet
        Ok(RawRecord {
            timestamp_delta_ms: read_varlong(&mut body)?,
            offset_delta: read_varint(&mut body)?,
            key: read_bytes(&mut body)?,
            value: read_bytes(&mut body)?,
            header_count: read_varint(&mut body)?,
            header_bytes: body,
        })
    }

    fn for_each_header(
        &self,
        mut each: impl FnMut(&'a str, Option<&'a [u8]>),
    ) -> Result<(), Fault> {
        if self.header_count < 0 {
            return Err("its count of headers is negative");
        }
        let mut rest = self.header_bytes;
        for _ in 0..self.header_count {
            let key = read_bytes(&mut rest)?.ok_or("a header has no key")?;
            let key = std::str::from_utf8(key).map_err(|_| "a header's key is not UTF-8")?;
            each(key, read_bytes(&mut rest)?);
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err("bytes follow its last header")
        }
    }

    fn headers(&self, payload: &Bytes) -> Result<Vec<Header>, Fault> {
        let mut headers = Vec::new();
        self.for_each_header(|key, value| {
            headers.push(Header {
                key: key.to_owned(),
                value: value.map(|value| payload.slice_ref(value)),
            });
        })?;
        Ok(headers)
    }
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8], Fault> {
    let (taken, rest) = input.split_at_checked(length).ok_or("it is cut short")?;
    *input = rest;
    Ok(taken)
}

fn read_bytes<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
    match read_varint(input)? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| "a length is below -1")?;
            take(input, length).map(Some)
        }
    }
}

fn read_varint(input: &mut &[u8]) -> Result<i32, Fault> {
    let value = read_varlong(input)?;
    i32::try_from(value).map_err(|_| "a number does not fit in 32 bits")
}

fn read_varlong(input: &mut &[u8]) -> Result<i64, Fault> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first().ok_or("it is cut short")?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err("a number does not fit in 64 bits");
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err("a number does not fit in 64 bits")
}

/// A record to be written into a batch.
#[derive(Clone, Copy)]
pub(super) struct NewRecord<'a> {
    pub offset_delta: i32,
    pub timestamp_delta_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [Header],
}

impl NewRecord<'_> {
    /// Number of bytes after the length field.
    pub fn body_bytes(&self) -> usize {
        let header_bytes: usize = self
            .headers
            .iter()
            .map(|header| {
                bytes_len(Some(header.key.as_bytes())) + bytes_len(header.value.as_deref())
            })
            .sum();
        1 + varint_len(self.timestamp_delta_ms)
            + varint_len(i64::from(self.offset_delta))
            + bytes_len(self.key)
            + bytes_len(self.value)
            + varint_len(self.headers.len() as i64)
            + header_bytes
    }

    /// Appends the record; `body_bytes` must be the result of [`NewRecord::body_bytes`].
    pub fn encode(&self, body_bytes: usize, out: &mut impl BufMut) {
        put_varint(out, body_bytes as i64);
        out.put_u8(0);
        put_varint(out, self.timestamp_delta_ms);
        put_varint(out, i64::from(self.offset_delta));
        put_bytes(out, self.key);
        put_bytes(out, self.value);
        put_varint(out, self.headers.len() as i64);
        for header in self.headers {
            put_bytes(out, Some(header.key.as_bytes()));
            put_bytes(out, header.value.as_deref());
        }
    }
}

/// Length of a number as a varint, in bytes.
pub(super) fn varint_len(value: i64) -> usize {
    let bits = 64 - zig_zag(value).leading_zeros() as usize;
    bits.div_ceil(7).max(1)
}

fn zig_zag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn put_varint(out: &mut impl BufMut, value: i64) {
    let mut rest = zig_zag(value);
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

fn bytes_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        Some(bytes) => varint_len(bytes.len() as i64) + bytes.len(),
        None => 1,
    }
}

fn put_bytes(out: &mut impl BufMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.put_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}
