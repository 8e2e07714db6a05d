//! Builds a batch: encodes records as they arrive, and compresses them together at the end.

use bytes::{BufMut, Bytes, BytesMut};

use super::compression::compress;
use super::record::{NewRecord, varint_len};
use super::view::{BEFORE_LENGTH_BYTES, MAGIC, put_crc, put_producer};
use super::{BatchError, Compression, HEADER_BYTES, Header};

/// Initial allocation of a batch, whatever its limit.
const FIRST_BYTES: usize = 1024;

/// Collects records until no more fit, then builds a batch of them.
#[derive(Debug)]
pub struct BatchBuilder {
    compression: Compression,
    max_bytes: usize,
    /// Room for the header, followed by the uncompressed records.
    bytes: BytesMut,
    count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    producer: (i64, i16, i32),
}

impl BatchBuilder {
    /// An empty batch for records up to `max_bytes` in all, including the header, counted before
    /// compression. So the built batch never exceeds the limit, compressed or not.
    pub fn new(compression: Compression, max_bytes: usize) -> BatchBuilder {
        let max_bytes = max_bytes.min(i32::MAX as usize);
        let mut bytes = BytesMut::with_capacity(max_bytes.min(FIRST_BYTES));
        bytes.put_bytes(0, HEADER_BYTES);
        BatchBuilder {
            compression,
            max_bytes,
            bytes,
            count: 0,
            base_timestamp_ms: 0,
            max_timestamp_ms: 0,
            producer: (-1, -1, -1),
        }
    }

    /// Adds a record if it fits. `false` means that the batch is too full for it, and unchanged.
    ///
    /// # Errors
    /// [`BatchError::RecordTooLarge`] if not even an empty batch has room for it.
    pub fn push(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
        timestamp_ms: i64,
    ) -> Result<bool, BatchError> {
        let first = self.count == 0;
        let base_timestamp_ms = if first {
            timestamp_ms
        } else {
            self.base_timestamp_ms
        };
        let record = NewRecord {
            offset_delta: self.count,
            timestamp_delta_ms: timestamp_ms.wrapping_sub(base_timestamp_ms),
            key,
            value,
            headers,
        };
        let body_bytes = record.body_bytes();
        let record_bytes = varint_len(body_bytes as i64) + body_bytes;
        if self.bytes.len() + record_bytes > self.max_bytes {
            return self.refuse(record);
        }
        record.encode(body_bytes, &mut self.bytes);
        self.max_timestamp_ms = if first {
            timestamp_ms
        } else {
            self.max_timestamp_ms.max(timestamp_ms)
        };
        self.base_timestamp_ms = base_timestamp_ms;
        self.count += 1;
        Ok(true)
    }

    /// Sets the producer identity of the batch; -1 for none.
    pub fn set_producer(&mut self, id: i64, epoch: i16, base_sequence: i32) {
        self.producer = (id, epoch, base_sequence);
    }

    /// Number of records.
    pub fn record_count(&self) -> usize {
        self.count as usize
    }

    /// Returns true if the batch has no records.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Length in bytes before compression, including the header.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Builds the batch. Records that compression would make longer stay uncompressed. A builder without
    /// records returns no bytes, since a producer's batch has at least one record.
    pub fn build(mut self) -> Bytes {
        if self.is_empty() {
            return Bytes::new();
        }
        let compression = self.compress();
        self.put_header(compression);
        self.bytes.freeze()
    }

    fn compress(&mut self) -> Compression {
        if self.compression == Compression::None {
            return Compression::None;
        }
        let payload = &self.bytes[HEADER_BYTES..];
        match compress(self.compression, payload) {
            Ok(compressed) if compressed.len() < payload.len() => {
                self.bytes.truncate(HEADER_BYTES);
                self.bytes.put_slice(&compressed);
                self.compression
            }
            _ => Compression::None,
        }
    }

    fn put_header(&mut self, compression: Compression) {
        let length = (self.bytes.len() - BEFORE_LENGTH_BYTES) as i32;
        let mut header = &mut self.bytes[..HEADER_BYTES];
        header.put_i64(0); // base offset: assigned by the log
        header.put_i32(length);
        header.put_i32(-1); // leader epoch: assigned by the log
        header.put_i8(MAGIC);
        header.put_u32(0); // CRC, below
        header.put_i16(i16::from(compression.number()));
        header.put_i32(self.count - 1);
        header.put_i64(self.base_timestamp_ms);
        header.put_i64(self.max_timestamp_ms);
        header.put_bytes(0, 14); // the producer, below
        header.put_i32(self.count);
        let (id, epoch, base_sequence) = self.producer;
        put_producer(&mut self.bytes, id, epoch, base_sequence);
        put_crc(&mut self.bytes);
    }

    /// Distinguishes a record that must wait for the next batch from one that fits into none.
    fn refuse(&self, record: NewRecord<'_>) -> Result<bool, BatchError> {
        let alone = NewRecord {
            offset_delta: 0,
            timestamp_delta_ms: 0,
            ..record
        };
        let body_bytes = alone.body_bytes();
        let bytes = HEADER_BYTES + varint_len(body_bytes as i64) + body_bytes;
        if bytes > self.max_bytes {
            return Err(BatchError::RecordTooLarge {
                bytes,
                limit: self.max_bytes,
            });
        }
        Ok(false)
    }
}
