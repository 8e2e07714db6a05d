//! The header of a batch, read in place.

use bytes::{BufMut, Bytes, BytesMut};

use super::record::{Record, Records, Stated, validate};
use super::unpack::{Unpacking, decompress};
use super::{BatchError, Compression, Limits};

/// The length of the header in bytes.
pub const HEADER_BYTES: usize = 61;

/// Bytes that the length field does not count: the base offset and the field itself.
pub(super) const BEFORE_LENGTH_BYTES: usize = 12;
/// Offset of the first byte that the CRC covers.
pub(super) const CRC_FROM: usize = 21;

pub(super) const MAGIC: i8 = 2;

pub(super) const CODEC_BITS: i16 = 0x07;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
/// Attributes that a client may set: a codec, and the two bits with errors of their own.
const KNOWN_BITS: i16 = CODEC_BITS | TRANSACTIONAL_BIT | CONTROL_BIT;

/// A record batch and its header's fields. It shares the memory of the bytes it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchView {
    bytes: Bytes,
    compression: Compression,
}

impl BatchView {
    /// Checks a client's batch: length and limits, CRC, attributes, counts, and uncompressed records. For
    /// compressed records, the caller decompresses them and calls [`BatchView::check_records`].
    ///
    /// Base offset and leader epoch are not checked, since the log assigns them and the CRC does not cover
    /// them.
    pub fn check(bytes: Bytes, limits: &Limits) -> Result<BatchView, BatchError> {
        let limit = limits.max_batch_bytes as usize;
        if bytes.len() > limit {
            return Err(BatchError::BatchTooLarge {
                bytes: bytes.len(),
                limit,
            });
        }
        check_frame(&bytes)?;
        check_crc(&bytes)?;
        let attributes = attributes(&bytes);
        let batch = BatchView {
            compression: codec(&bytes)?,
            bytes,
        };
        check_attributes(attributes)?;
        batch.check_counts(limits)?;
        batch.check_producer()?;
        if batch.compression == Compression::None {
            batch.check_records(&batch.bytes[HEADER_BYTES..], limits)?;
        }
        Ok(batch)
    }

    /// Checks the decompressed records of a batch against its header: framing, count, offsets and
    /// timestamps.
    pub fn check_records(&self, payload: &[u8], limits: &Limits) -> Result<(), BatchError> {
        let stated = Stated {
            count: self.record_count(),
            base_timestamp_ms: self.base_timestamp_ms(),
            max_timestamp_ms: self.max_timestamp_ms(),
        };
        validate(payload, stated, limits.latest_timestamp_ms)
    }

    /// Accepts a batch that passed [`BatchView::check`] before and was stored by this system, which guards
    /// its bytes with its own checksums. Only length, format and codec are checked.
    pub fn trusted(bytes: Bytes) -> Result<BatchView, BatchError> {
        check_frame(&bytes)?;
        Ok(BatchView {
            compression: codec(&bytes)?,
            bytes,
        })
    }

    /// Checks the CRC of a trusted batch.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        check_crc(&self.bytes)
    }

    /// Base offset in the header. It is the producer's until the log writes its own.
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(field(&self.bytes, 0))
    }

    /// Leader epoch in the header. It is the producer's until the log writes its own.
    pub fn leader_epoch(&self) -> i32 {
        i32::from_be_bytes(field(&self.bytes, 12))
    }

    /// CRC-32C in the header.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(field(&self.bytes, 17))
    }

    /// Number of records; at least 1 in a checked batch.
    pub fn record_count(&self) -> i32 {
        i32::from_be_bytes(field(&self.bytes, 57))
    }

    /// Producer id at its position in bytes that are not checked at all; `None` if they are too short or
    /// hold no id.
    pub fn unchecked_producer_id(bytes: &[u8]) -> Option<i64> {
        let id: [u8; 8] = bytes.get(43..51)?.try_into().ok()?;
        Some(i64::from_be_bytes(id)).filter(|id| *id >= 0)
    }

    /// Last offset of the batch, relative to its base offset.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(field(&self.bytes, 23))
    }

    /// Number of offsets, and of sequence numbers, that the batch takes: its record count as received.
    /// Compaction removes records, but no offsets.
    pub fn offset_count(&self) -> u32 {
        let last = u32::try_from(self.last_offset_delta());
        last.map_or(0, |last| last.saturating_add(1))
    }

    /// The producer id; -1 for none.
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(field(&self.bytes, 43))
    }

    /// The producer's epoch; -1 for none.
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(field(&self.bytes, 51))
    }

    /// The first record's sequence number; -1 for none.
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(field(&self.bytes, 53))
    }

    /// The first record's timestamp, ms since 1970.
    pub fn base_timestamp_ms(&self) -> i64 {
        i64::from_be_bytes(field(&self.bytes, 27))
    }

    /// Latest timestamp of any record, ms since 1970, as stated by the producer.
    pub fn max_timestamp_ms(&self) -> i64 {
        i64::from_be_bytes(field(&self.bytes, 35))
    }

    /// Codec of the records.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Returns true for a control batch: a marker of the log instead of records.
    pub fn is_control(&self) -> bool {
        attributes(&self.bytes) & CONTROL_BIT != 0
    }

    /// The whole batch.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The whole batch, without its view.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Iterator over the records. Uncompressed records share this batch's memory. Compressed ones share the
    /// memory that they are decompressed to, at most `max_decompressed_bytes`.
    pub fn iter_records(&self, max_decompressed_bytes: usize) -> Result<Records, BatchError> {
        let payload = self.bytes.slice(HEADER_BYTES..);
        let payload = decompress(self.compression, payload, max_decompressed_bytes)?;
        Ok(self.records_of(payload))
    }

    /// Starts to decompress the records, to at most `max_unpacked_bytes`.
    ///
    /// # Errors
    /// [`BatchError::Compressed`] if the codec can't read the beginning.
    pub fn unpacking(&self, max_unpacked_bytes: usize) -> Result<Unpacking, BatchError> {
        let payload = self.bytes.slice(HEADER_BYTES..);
        Unpacking::new(self.compression, payload, max_unpacked_bytes)
    }

    /// Iterator over the records in a payload from [`Unpacking`].
    pub fn records_of(&self, payload: Bytes) -> Records {
        Records::new(
            payload,
            self.record_count(),
            self.last_offset_delta(),
            self.base_timestamp_ms(),
        )
    }

    /// All records, as [`BatchView::iter_records`] returns them. Besides the decompressed bytes, the list
    /// takes about 110 bytes a record.
    pub fn records(&self, max_decompressed_bytes: usize) -> Result<Vec<Record>, BatchError> {
        self.iter_records(max_decompressed_bytes)?.collect()
    }

    /// The first 16 bytes with the log's values, to be sent in place of the producer's: base offset, length
    /// and leader epoch. An epoch beyond the field's 31 bits appears as the largest value.
    pub fn patch_head(&self, base_offset: u64, leader_epoch: u64) -> [u8; 16] {
        let mut head = [0; 16];
        let mut out = &mut head[..];
        out.put_u64(base_offset);
        out.put_slice(&self.bytes[8..12]);
        out.put_i32(i32::try_from(leader_epoch).unwrap_or(i32::MAX));
        head
    }

    /// A copy with another producer identity and a matching CRC, for a producer that begins a new epoch
    /// with unsent batches.
    pub fn with_producer(&self, id: i64, epoch: i16, base_sequence: i32) -> Bytes {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        put_producer(&mut bytes, id, epoch, base_sequence);
        put_crc(&mut bytes);
        bytes.freeze()
    }

    fn check_counts(&self, limits: &Limits) -> Result<(), BatchError> {
        let (count, last_offset_delta) = (self.record_count(), self.last_offset_delta());
        if count <= 0 || last_offset_delta != count - 1 {
            return Err(BatchError::Count {
                count,
                last_offset_delta,
            });
        }
        if count.unsigned_abs() > limits.max_records {
            return Err(BatchError::TooManyRecords {
                count,
                limit: limits.max_records,
            });
        }
        Ok(())
    }

    fn check_producer(&self) -> Result<(), BatchError> {
        let (id, epoch, base_sequence) = (
            self.producer_id(),
            self.producer_epoch(),
            self.base_sequence(),
        );
        let identified = id >= 0 && epoch >= 0 && base_sequence >= 0;
        if id == -1 || identified {
            return Ok(());
        }
        Err(BatchError::Producer {
            id,
            epoch,
            base_sequence,
        })
    }
}

/// Writes the producer's three fields into a batch that has at least a header.
pub(super) fn put_producer(batch: &mut [u8], id: i64, epoch: i16, base_sequence: i32) {
    batch[43..51].copy_from_slice(&id.to_be_bytes());
    batch[51..53].copy_from_slice(&epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&base_sequence.to_be_bytes());
}

/// Writes the CRC of the current content. It is the last step of every change.
pub(super) fn put_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Checks length and format. A batch that passes has a whole header, so its fields can be read.
fn check_frame(bytes: &[u8]) -> Result<(), BatchError> {
    if bytes.len() < HEADER_BYTES {
        return Err(BatchError::Truncated { bytes: bytes.len() });
    }
    let stated = i32::from_be_bytes(field(bytes, 8));
    let actual = bytes.len() - BEFORE_LENGTH_BYTES;
    if usize::try_from(stated) != Ok(actual) {
        return Err(BatchError::Length { stated, actual });
    }
    let magic = i8::from_be_bytes(field(bytes, 16));
    if magic != MAGIC {
        return Err(BatchError::Magic(magic));
    }
    Ok(())
}

fn check_crc(bytes: &[u8]) -> Result<(), BatchError> {
    let stated = u32::from_be_bytes(field(bytes, 17));
    let computed = crc32c::crc32c(&bytes[CRC_FROM..]);
    if stated != computed {
        return Err(BatchError::Crc { stated, computed });
    }
    Ok(())
}

fn check_attributes(attributes: i16) -> Result<(), BatchError> {
    if attributes & CONTROL_BIT != 0 {
        return Err(BatchError::Control);
    }
    if attributes & TRANSACTIONAL_BIT != 0 {
        return Err(BatchError::Transactional);
    }
    if attributes & !KNOWN_BITS != 0 {
        return Err(BatchError::Attributes(attributes & !KNOWN_BITS));
    }
    Ok(())
}

pub(super) fn attributes(bytes: &[u8]) -> i16 {
    i16::from_be_bytes(field(bytes, 21))
}

fn codec(bytes: &[u8]) -> Result<Compression, BatchError> {
    let number = (attributes(bytes) & CODEC_BITS) as u8;
    Compression::from_number(number).ok_or(BatchError::Codec(number))
}

/// A field of the header; the caller has checked that it is there.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}
