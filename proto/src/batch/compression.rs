//! The five codecs of a batch, and unpacking within a bound.
//!
//! The bytes are those of Kafka's Java client: gzip, lz4 and zstd as plain frames, snappy in the
//! xerial framing (raw snappy, which some clients send, is read too). Lengths inside a compressed
//! block are claims: no memory is taken on their word beyond the caller's bound.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use bytes::{Buf, BufMut, Bytes};

use super::BatchError;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Small, slow.
    Gzip,
    /// Fast, not very small.
    Snappy,
    /// Fastest.
    Lz4,
    /// Small and fast.
    Zstd,
}

impl Compression {
    /// Every codec there is.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// The codec of a number in a batch's attributes.
    pub fn from_number(number: u8) -> Option<Compression> {
        Compression::ALL.get(usize::from(number)).copied()
    }

    /// The number in a batch's attributes.
    pub fn number(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }

    /// The name, as configuration has it.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no codec's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}; use none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCompression(String);

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Compression, UnknownCompression> {
        Compression::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

/// The largest window a zstd frame may ask its reader to keep, as a power of two: the 8 MiB that
/// RFC 8878 recommends every decoder to support, and more than levels up to 19 ask for.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const ZSTD_LEVEL: i32 = 3;

/// What is unpacked before memory for more is taken.
const FIRST_READ_BYTES: usize = 16 << 10;

const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// The magic, a version and the oldest version that can read it, both 1.
const XERIAL_HEADER_BYTES: usize = 16;
/// What the Java client compresses at a time.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;
/// No snappy element gives more than 64 bytes for its 3; what claims more is no snappy.
const SNAPPY_MAX_RATIO: usize = 22;

/// Compresses with the given codec.
pub(super) fn compress(codec: Compression, payload: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        Compression::None => Ok(payload.to_vec()),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            encoder.write_all(payload)?;
            encoder.finish()
        }
        Compression::Snappy => snappy_compress(payload),
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(payload)?;
            Ok(encoder.finish()?)
        }
        Compression::Zstd => zstd::bulk::compress(payload, ZSTD_LEVEL),
    }
}

/// Unpacks to at most `limit` bytes; what is not compressed is handed back as it is.
pub(super) fn decompress(
    codec: Compression,
    payload: Bytes,
    limit: usize,
) -> Result<Bytes, BatchError> {
    let failed = |error: io::Error| BatchError::Compressed {
        codec,
        reason: error.to_string(),
    };
    let input = &payload[..];
    match codec {
        Compression::None => return Ok(payload),
        Compression::Gzip => read_bounded(codec, flate2::read::MultiGzDecoder::new(input), limit),
        Compression::Snappy => snappy_decompress(input, limit),
        Compression::Lz4 => read_bounded(codec, lz4_flex::frame::FrameDecoder::new(input), limit),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(input).map_err(failed)?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(failed)?;
            read_bounded(codec, decoder, limit)
        }
    }
    .map(Bytes::from)
}

/// Reads to the end or one byte past `limit`. The memory taken grows with what was read, at most
/// by doubling, and never past the bound.
fn read_bounded(
    codec: Compression,
    mut decoder: impl Read,
    limit: usize,
) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    while out.len() <= limit {
        let room = (limit - out.len()).saturating_add(1);
        let step = out.len().max(FIRST_READ_BYTES).min(room);
        out.reserve_exact(step);
        let read = decoder
            .by_ref()
            .take(step as u64)
            .read_to_end(&mut out)
            .map_err(|error| BatchError::Compressed {
                codec,
                reason: error.to_string(),
            })?;
        if read < step {
            return Ok(out);
        }
    }
    Err(BatchError::Expands { codec, limit })
}

fn snappy_compress(payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(XERIAL_HEADER_BYTES + payload.len() / 2);
    out.put_slice(XERIAL_MAGIC);
    out.put_i32(1);
    out.put_i32(1);
    let mut encoder = snap::raw::Encoder::new();
    for block in payload.chunks(XERIAL_BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block)?;
        let length = i32::try_from(compressed.len()).map_err(io::Error::other)?;
        out.put_i32(length);
        out.put_slice(&compressed);
    }
    Ok(out)
}

fn snappy_decompress(mut input: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    if !input.starts_with(XERIAL_MAGIC) {
        snappy_block(input, &mut out, limit)?;
        return Ok(out);
    }
    if input.len() < XERIAL_HEADER_BYTES {
        return Err(not_snappy("it ends within its header"));
    }
    input.advance(XERIAL_HEADER_BYTES);
    while !input.is_empty() {
        let length = input
            .try_get_i32()
            .ok()
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length <= input.len())
            .ok_or_else(|| not_snappy("a block ends past the batch"))?;
        let (block, rest) = input.split_at(length);
        snappy_block(block, &mut out, limit)?;
        input = rest;
    }
    Ok(out)
}

/// Unpacks one raw snappy block to the end of `out`.
fn snappy_block(block: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), BatchError> {
    let claimed = snap::raw::decompress_len(block).map_err(not_snappy)?;
    if claimed > limit.saturating_sub(out.len()) {
        return Err(BatchError::Expands {
            codec: Compression::Snappy,
            limit,
        });
    }
    if claimed > block.len().saturating_mul(SNAPPY_MAX_RATIO) {
        return Err(not_snappy("it claims a length it can't have"));
    }
    let start = out.len();
    out.resize(start + claimed, 0);
    let written = snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(not_snappy)?;
    out.truncate(start + written);
    Ok(())
}

fn not_snappy(reason: impl fmt::Display) -> BatchError {
    BatchError::Compressed {
        codec: Compression::Snappy,
        reason: reason.to_string(),
    }
}
