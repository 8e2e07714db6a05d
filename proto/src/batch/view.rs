//! The header of a batch, read in place.

use bytes::{BufMut, Bytes, BytesMut};

use super::record::{Record, Records, Stated, validate};
use super::unpack::{Unpacking, decompress};
use super::{BatchError, Compression, Limits};

/// The length of the header in bytes.
pub const HEADER_BYTES: usize = 61;

/// What the length field leaves out: the base offset and itself.
pub(super) const BEFORE_LENGTH_BYTES: usize = 12;
/// Where the bytes under the CRC begin.
pub(super) const CRC_FROM: usize = 21;

pub(super) const MAGIC: i8 = 2;

pub(super) const CODEC_BITS: i16 = 0x07;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
/// What a client may say: a codec, and the two bits that have an error of their own.
const KNOWN_BITS: i16 = CODEC_BITS | TRANSACTIONAL_BIT | CONTROL_BIT;

/// A record batch and its header's fields. Shares the memory of the bytes it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchView {
    bytes: Bytes,
    compression: Compression,
}

impl BatchView {
    /// Checks what a broker asks of a batch from a client: length and limits, CRC, attributes, counts,
    /// and the records where they are not compressed. Compressed ones are unpacked by the caller, for
    /// [`BatchView::check_records`].
    ///
    /// Two fields are free, since the log assigns them and the CRC leaves them out: base offset and
    /// leader epoch.
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

    /// Checks the records of a batch, unpacked, against its header: framing, count, offsets and
    /// timestamps.
    pub fn check_records(&self, payload: &[u8], limits: &Limits) -> Result<(), BatchError> {
        let stated = Stated {
            count: self.record_count(),
            base_timestamp_ms: self.base_timestamp_ms(),
            max_timestamp_ms: self.max_timestamp_ms(),
        };
        validate(payload, stated, limits.latest_timestamp_ms)
    }

    /// Takes a batch that passed [`BatchView::check`] before and was kept by this system, which
    /// guards its bytes with checksums of its own: looks at length, format and codec only.
    pub fn trusted(bytes: Bytes) -> Result<BatchView, BatchError> {
        check_frame(&bytes)?;
        Ok(BatchView {
            compression: codec(&bytes)?,
            bytes,
        })
    }

    /// Compares the CRC of a batch taken on trust.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        check_crc(&self.bytes)
    }

    /// The offset of the first record as the header has it: the producer's until the log wrote its own.
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(field(&self.bytes, 0))
    }

    /// The leader epoch as the header has it: the producer's until the log wrote its own.
    pub fn leader_epoch(&self) -> i32 {
        i32::from_be_bytes(field(&self.bytes, 12))
    }

    /// The CRC-32C as the header has it.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(field(&self.bytes, 17))
    }

    /// How many records there are; at least 1 in a checked batch.
    pub fn record_count(&self) -> i32 {
        i32::from_be_bytes(field(&self.bytes, 57))
    }

    /// The producer id that bytes carry where a batch has it, none of which are checked; `None` if they
    /// are too short or carry no id.
    pub fn unchecked_producer_id(bytes: &[u8]) -> Option<i64> {
        let id: [u8; 8] = bytes.get(43..51)?.try_into().ok()?;
        Some(i64::from_be_bytes(id)).filter(|id| *id >= 0)
    }

    /// The last record's offset, less the base offset.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(field(&self.bytes, 23))
    }

    /// How many offsets it takes, and sequence numbers: as many as it had records when it came.
    /// Compaction takes records, but no offsets.
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

    /// The latest timestamp of any record, ms since 1970, as the producer states it.
    pub fn max_timestamp_ms(&self) -> i64 {
        i64::from_be_bytes(field(&self.bytes, 35))
    }

    /// How the records are compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Whether this is a marker of the log's own rather than records.
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

    /// The records one by one. Uncompressed ones share this batch's memory; compressed ones share
    /// the memory they are unpacked to, at most `max_decompressed_bytes`.
    pub fn iter_records(&self, max_decompressed_bytes: usize) -> Result<Records, BatchError> {
        let payload = self.bytes.slice(HEADER_BYTES..);
        let payload = decompress(self.compression, payload, max_decompressed_bytes)?;
        Ok(self.records_of(payload))
    }

    /// Begins to unpack the records, to at most `max_unpacked_bytes`.
    ///
    /// # Errors
    /// [`BatchError::Compressed`] for a beginning that is no such compression.
    pub fn unpacking(&self, max_unpacked_bytes: usize) -> Result<Unpacking, BatchError> {
        let payload = self.bytes.slice(HEADER_BYTES..);
        Unpacking::new(self.compression, payload, max_unpacked_bytes)
    }

    /// The records one by one, of what [`Unpacking`] gave.
    pub fn records_of(&self, payload: Bytes) -> Records {
        Records::new(
            payload,
            self.record_count(),
            self.last_offset_delta(),
            self.base_timestamp_ms(),
        )
    }

    /// All records, as [`BatchView::iter_records`] gives them. Beside the decompressed bytes the
    /// list itself takes about 110 bytes a record.
    pub fn records(&self, max_decompressed_bytes: usize) -> Result<Vec<Record>, BatchError> {
        self.iter_records(max_decompressed_bytes)?.collect()
    }

    /// The first 16 bytes as the log has them, to be sent in place of the producer's: base offset,
    /// length, and leader epoch. An epoch past the field's 31 bits shows as the highest it can hold.
    pub fn patch_head(&self, base_offset: u64, leader_epoch: u64) -> [u8; 16] {
        let mut head = [0; 16];
        let mut out = &mut head[..];
        out.put_u64(base_offset);
        out.put_slice(&self.bytes[8..12]);
        out.put_i32(i32::try_from(leader_epoch).unwrap_or(i32::MAX));
        head
    }

    /// A copy under another producer identity, with a CRC to match: for a producer that begins a
    /// new epoch with batches still unsent.
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

/// Writes the producer's three fields into a batch of at least a header's length.
pub(super) fn put_producer(batch: &mut [u8], id: i64, epoch: i16, base_sequence: i32) {
    batch[43..51].copy_from_slice(&id.to_be_bytes());
    batch[51..53].copy_from_slice(&epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&base_sequence.to_be_bytes());
}

/// Writes the CRC of what the batch holds now; the last step of whoever changes it.
pub(super) fn put_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Length and format. What passes has a whole header, so that its fields can be read.
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

/// A field of the header; the caller has made sure that there is one.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}
