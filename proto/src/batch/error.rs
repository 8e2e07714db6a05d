//! Why bytes are no acceptable record batch.

use super::Compression;
use crate::error::{ErrorCode, WireError};

/// What is wrong with a batch, a record in it, or a record about to join one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Too short for a header.
    #[error("{bytes} bytes are too few for a record batch, whose header alone takes 61")]
    Truncated {
        /// How many bytes there are.
        bytes: usize,
    },
    /// The length field tells another length than the bytes have.
    #[error(
        "the batch states a length of {stated} bytes after its length field, {actual} are there"
    )]
    Length {
        /// What the length field says.
        stated: i32,
        /// What follows the length field.
        actual: usize,
    },
    /// A batch over the limit.
    #[error(
        "a batch of {bytes} bytes is over the limit of {limit}; send smaller batches or raise max_batch_bytes"
    )]
    BatchTooLarge {
        /// The batch's size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A record that fits no batch, not even alone.
    #[error(
        "a record that takes a batch of {bytes} bytes is over the limit of {limit}; split it or raise max_batch_bytes"
    )]
    RecordTooLarge {
        /// The bytes of a batch with this record alone.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// More records in one batch than allowed.
    #[error("a batch of {count} records is over the limit of {limit}; send smaller batches")]
    TooManyRecords {
        /// What the header says.
        count: i32,
        /// The limit.
        limit: u32,
    },
    /// Another format than v2.
    #[error("record format {0} is not supported, only 2 is; use a client that writes format 2")]
    Magic(i8),
    /// The bytes are not those the producer wrote.
    #[error(
        "the CRC-32C is {computed:#010x}, the batch states {stated:#010x}: it was damaged on its way; send it again"
    )]
    Crc {
        /// What the header says.
        stated: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A codec with no meaning yet.
    #[error("compression codec {0} is unknown; use none, gzip, snappy, lz4 or zstd")]
    Codec(u8),
    /// A client may not write the log's own markers.
    #[error("control batches are the broker's own; a client can't send one")]
    Control,
    /// Transactions do not exist yet.
    #[error("transactions are not supported; send without a transactional id")]
    Transactional,
    /// Attributes only the log may set, or of a newer format.
    #[error("attribute bits {0:#06x} can't be set by a client")]
    Attributes(i16),
    /// The count of records and the last offset delta belong together.
    #[error("{count} records and a last offset delta of {last_offset_delta} do not agree")]
    Count {
        /// The count of records the header states.
        count: i32,
        /// The last offset delta the header states.
        last_offset_delta: i32,
    },
    /// A producer id without what goes with it.
    #[error(
        "producer id {id}, epoch {epoch} and sequence {base_sequence} do not go together; all are at least 0, or the id is -1"
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
        /// Its place in the batch, from 0.
        index: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The header's latest timestamp is not that of the records: times would be looked up wrongly.
    #[error(
        "the header states {stated_ms} as the latest timestamp, the latest of the records is {actual_ms}; mend the client that builds such batches"
    )]
    MaxTimestamp {
        /// Timestamp in the header, in ms since 1970.
        stated_ms: i64,
        /// Latest timestamp of the records, in ms since 1970.
        actual_ms: i64,
    },
    /// A record from further in the future than the topic takes.
    #[error(
        "record {index} of the batch has the timestamp {timestamp_ms}, past {latest_ms}, the latest that is taken now (ms since 1970); set the producer's clock right, or raise max_timestamp_ahead of the topic"
    )]
    TooFarAhead {
        /// Its place in the batch, from 0.
        index: usize,
        /// Its timestamp, in ms since 1970.
        timestamp_ms: i64,
        /// The limit.
        latest_ms: i64,
    },
    /// Bytes after the last record.
    #[error("{bytes} bytes follow the last record of the batch")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// The codec can't make sense of the compressed block.
    #[error("the records do not decompress with {codec}: {reason}")]
    Compressed {
        /// The codec the header names.
        codec: Compression,
        /// What the codec says.
        reason: String,
    },
    /// The records decompress to more than the reader allows.
    #[error(
        "the records decompress with {codec} to more than {limit} bytes; raise the reader's limit if that is meant"
    )]
    Expands {
        /// The codec the header names.
        codec: Compression,
        /// The reader's limit in bytes.
        limit: usize,
    },
}

impl BatchError {
    /// The row of the error table.
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
