//! The record batch, Kafka's format v2 (magic 2): the only form of a record from the producer through the
//! log to the consumer.
//!
//! | bytes | field | written by |
//! |---|---|---|
//! | 0..8 | base offset | the log |
//! | 8..12 | length of everything that follows | the producer |
//! | 12..16 | leader epoch | the log |
//! | 16 | magic, 2 | the producer |
//! | 17..21 | CRC-32C of everything from 21 on | the producer |
//! | 21..23 | attributes: codec in bits 0–2, then log append time, transactional, control | the producer |
//! | 23..27 | last offset delta | the producer |
//! | 27..35, 35..43 | base and maximum timestamp, ms since 1970 | the producer |
//! | 43..51, 51..53, 53..57 | producer id, epoch, base sequence; -1 for none | the producer |
//! | 57..61 | number of records | the producer |
//! | 61.. | the records, compressed as one block if a codec is set | the producer |
//!
//! All integers are big-endian. A broker checks the whole batch before it accepts it, and decompresses
//! records only to read them. It re-encodes a batch only for compaction or for a reader's filter. Where
//! batches are kept or sent must never come in here.

mod builder;
mod compression;
mod error;
mod record;
mod retain;
mod unpack;
mod view;

pub use builder::BatchBuilder;
pub use compression::Compression;
pub use error::BatchError;
pub use record::{Header, Record, Records};
pub use unpack::Unpacking;
pub use view::{BatchView, HEADER_BYTES};

/// Limits on a batch from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum bytes of one batch as received, including its header.
    pub max_batch_bytes: u32,
    /// Maximum number of records in one batch, each of which takes an offset.
    pub max_records: u32,
    /// Latest allowed timestamp of a record, in ms since 1970.
    pub latest_timestamp_ms: i64,
}

impl Limits {
    /// The limits of a topic with batches of at most `max_batch_bytes`, and any timestamp.
    pub const fn new(max_batch_bytes: u32) -> Limits {
        Limits {
            max_batch_bytes,
            max_records: max_batch_bytes,
            latest_timestamp_ms: i64::MAX,
        }
    }
}
