//! The record batch, Kafka's format v2 (magic 2): the one form a record has from the producer
//! through the log to the consumer.
//!
//! | bytes | field | who writes it |
//! |---|---|---|
//! | 0..8 | base offset | the log |
//! | 8..12 | length of all that follows | the producer |
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
//! All integers are big endian. A broker looks at all of it before it takes it, unpacks what is
//! compressed only to look, and re-encodes nothing but what a reader asks to have filtered; what it
//! must not learn here is where batches are kept or sent.

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

/// What a broker accepts from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of one batch as it came, its header included.
    pub max_batch_bytes: u32,
    /// The most records one batch may hold, each of which takes an offset.
    pub max_records: u32,
    /// The latest timestamp a record may have, in ms since 1970.
    pub latest_timestamp_ms: i64,
}

impl Limits {
    /// The limits of a topic whose batches are at most `max_batch_bytes` long, whatever the time.
    pub const fn new(max_batch_bytes: u32) -> Limits {
        Limits {
            max_batch_bytes,
            max_records: max_batch_bytes,
            latest_timestamp_ms: i64::MAX,
        }
    }
}
