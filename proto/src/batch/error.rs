//! Faults of record batches.

use super::Compression;
use crate::error::{ErrorCode, WireError};
use crate::units;

/// Fault of a batch, of a record in it, or of a record that cannot join one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Too short for a header.
    #[error("batch of {bytes} bytes is too short: the header alone takes 61")]
    Truncated {
        /// Number of bytes.
        bytes: usize,
    },
    /// The length field does not match the number of bytes.
    #[error("batch states a length of {stated} bytes after its length field, and has {actual}")]
    Length {
        /// Length in the length field.
        stated: i32,
        /// Number of bytes after the length field.
        actual: usize,
    },
    /// A batch over the limit.
    #[error(
        "batch of {bytes} bytes is over the limit of {}; send smaller batches or raise \
         max_batch_bytes",
        in_units(.limit)
    )]
    BatchTooLarge {
        /// The batch's size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A record that does not fit into any batch, not even alone.
    #[error(
        "record that needs a batch of {bytes} bytes is over the limit of {}; split it or \
         raise max_batch_bytes",
        in_units(.limit)
    )]
    RecordTooLarge {
        /// Bytes of a batch with this record alone.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// More records in one batch than allowed.
    #[error("batch of {count} records is over the limit of {limit}; send smaller batches")]
    TooManyRecords {
        /// Record count in the header.
        count: i32,
        /// The limit.
        limit: u32,
    },
    /// A format other than v2.
    #[error("record format {0} is not supported, only format 2; use a client that writes format 2")]
    Magic(i8),
    /// The bytes differ from those that the producer wrote.
    #[error(
        "batch is damaged: its CRC-32C is {computed:#010x}, and it states {stated:#010x}; send it \
         again"
    )]
    Crc {
        /// CRC in the header.
        stated: u32,
        /// CRC of the bytes.
        computed: u32,
    },
    /// A codec number without a codec.
    #[error("compression codec {0} is unknown; use none, gzip, snappy, lz4 or zstd")]
    Codec(u8),
    /// A control batch, which only the log may write.
    #[error("control batches are reserved for the broker; a client cannot send one")]
    Control,
    /// A transactional batch. Transactions do not exist yet.
    #[error("transactions are not supported; send without a transactional id")]
    Transactional,
    /// Attributes that only the log may set, or that a newer format defines.
    #[error("attribute bits {0:#06x} cannot be set by a client")]
    Attributes(i16),
    /// A record count that does not match the last offset delta.
    #[error("batch of {count} records does not match its last offset delta of {last_offset_delta}")]
    Count {
        /// Record count in the header.
        count: i32,
        /// Last offset delta in the header.
        last_offset_delta: i32,
    },
    /// A producer id without an epoch or a sequence number.
    #[error(
        "producer id {id}, epoch {epoch} and sequence {base_sequence} do not match; all are at \
         least 0, or the id is -1"
    )]
    Producer {
        /// The producer id.
        id: i64,
        /// Its epoch.
        epoch: i16,
        /// The sequence number of the first record.
        base_sequence: i32,
    },
    /// A record that does not parse.
    #[error("record {index} of the batch is malformed: {what}")]
    Record {
        /// Position in the batch, from 0.
        index: usize,
        /// Description of the fault.
        what: &'static str,
    },
    /// The header's latest timestamp is not that of the records. Lookups by time would be wrong.
    #[error(
        "batch header states {stated_ms} as the latest timestamp, and the latest of the records \
         is {actual_ms}; fix the client that builds such batches"
    )]
    MaxTimestamp {
        /// Timestamp in the header, in ms since 1970.
        stated_ms: i64,
        /// Latest timestamp of the records, in ms since 1970.
        actual_ms: i64,
    },
    /// A record further in the future than the topic allows.
    #[error(
        "record {index} of the batch has the timestamp {timestamp_ms}, later than {latest_ms}, \
         the latest accepted now (ms since 1970); correct the producer's clock, or raise \
         max_timestamp_ahead of the topic"
    )]
    TooFarAhead {
        /// Position in the batch, from 0.
        index: usize,
        /// Its timestamp, in ms since 1970.
        timestamp_ms: i64,
        /// Latest allowed timestamp, in ms since 1970.
        latest_ms: i64,
    },
    /// Bytes after the last record.
    #[error("{bytes} bytes follow the last record of the batch")]
    TrailingBytes {
        /// Number of bytes.
        bytes: usize,
    },
    /// The codec can't decompress the block.
    #[error("batch cannot be decompressed with {codec}: {reason}")]
    Compressed {
        /// Codec in the header.
        codec: Compression,
        /// Error of the codec.
        reason: String,
    },
    /// The records decompress to more than the reader allows.
    #[error(
        "batch decompresses with {codec} to more than {}; raise the reader's limit if that is \
         intended",
        in_units(.limit)
    )]
    Expands {
        /// Codec in the header.
        codec: Compression,
        /// The reader's limit in bytes.
        limit: usize,
    },
}

/// Formats a limit in bytes for an error.
fn in_units(limit: &usize) -> String {
    units::size(*limit as u64)
}

impl BatchError {
    /// The code in the error table.
    pub fn code(&self) -> ErrorCode {
        match self {
            BatchError::BatchTooLarge { .. }
            | BatchError::RecordTooLarge { .. }
            | BatchError::TooManyRecords { .. }
            | BatchError::Expands { .. } => ErrorCode::TooLarge,
            BatchError::Magic(_) | BatchError::Codec(_) | BatchError::Transactional => {
                ErrorCode::UnsupportedVersion
            }
            BatchError::TooFarAhead { .. } => ErrorCode::InvalidTimestamp,
            BatchError::Control | BatchError::Attributes(_) => ErrorCode::InvalidRequest,
            BatchError::Truncated { .. }
            | BatchError::Length { .. }
            | BatchError::Crc { .. }
            | BatchError::Count { .. }
            | BatchError::Producer { .. }
            | BatchError::Record { .. }
            | BatchError::MaxTimestamp { .. }
            | BatchError::TrailingBytes { .. }
            | BatchError::Compressed { .. } => ErrorCode::CorruptBatch,
        }
    }
}

impl From<BatchError> for WireError {
    fn from(error: BatchError) -> WireError {
        WireError::new(error.code(), error.to_string())
    }
}
