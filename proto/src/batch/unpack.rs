//! Decompresses the records of a batch, in steps and within a bound.
//!
//! Raw snappy, which some clients send, is read besides the xerial framing. Lengths inside a compressed
//! block are unverified, and never cause an allocation beyond the caller's bound. Callers, scheduling, and
//! the capacity of the machine must never come in here.

use std::fmt;
use std::io::{self, Read};

use bytes::buf::Reader;
use bytes::{Buf, Bytes};

use super::compression::{XERIAL_HEADER_BYTES, XERIAL_MAGIC};
use super::{BatchError, Compression};

/// Largest window that a zstd frame may require, as a power of two. It is the 8 MiB that RFC 8878
/// recommends every decoder to support, and more than levels up to 19 require.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Bytes to decompress before more memory is allocated.
const FIRST_READ_BYTES: usize = 16 << 10;
/// Limit on a snappy block's expansion: no element gives more than 64 bytes for its 3.
const SNAPPY_MAX_RATIO: usize = 22;

/// The records of one batch during decompression. Decompressed bytes stay in memory, up to the bound.
pub struct Unpacking {
    codec: Compression,
    packed: Packed,
    unpacked: Vec<u8>,
    limit: usize,
}

enum Packed {
    /// Not compressed.
    Plain(Bytes),
    /// One frame, whose reader stops after it.
    Lz4(Box<lz4_flex::frame::FrameDecoder<Reader<Bytes>>>),
    /// A codec that streams its output and reads the whole input.
    Stream(Box<dyn Read + Send>),
    /// Blocks, each with its length.
    Xerial(Bytes),
    /// One block without a length.
    RawSnappy(Bytes),
}

impl Unpacking {
    /// Starts to decompress a payload, to at most `limit` bytes. An uncompressed payload has no bound,
    /// since it takes no memory.
    pub(super) fn new(
        codec: Compression,
        payload: Bytes,
        limit: usize,
    ) -> Result<Unpacking, BatchError> {
        let input = payload.clone().reader();
        let packed = match codec {
            Compression::None => Packed::Plain(payload),
            Compression::Gzip => {
                Packed::Stream(Box::new(flate2::bufread::MultiGzDecoder::new(input)))
            }
            Compression::Snappy => snappy(payload)?,
            Compression::Lz4 => Packed::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(input))),
            Compression::Zstd => Packed::Stream(Box::new(zstd(input).map_err(failed(codec))?)),
        };
        Ok(Unpacking {
            codec,
            packed,
            unpacked: Vec::new(),
            limit,
        })
    }

    /// Decompresses about `bytes` more. Returns `true` once everything is decompressed.
    ///
    /// # Errors
    /// [`BatchError::Expands`] past the bound; [`BatchError::Compressed`] for data that the codec can't
    /// read.
    pub fn step(&mut self, bytes: usize) -> Result<bool, BatchError> {
        let (codec, limit) = (self.codec, self.limit);
        let goal = self.unpacked.len().saturating_add(bytes);
        match &mut self.packed {
            Packed::Plain(_) => Ok(true),
            Packed::Stream(decoder) => {
                let whole = read_to(decoder, &mut self.unpacked, goal, limit);
                whole.map_err(failed(codec))?.ok_or_else(|| self.expands())
            }
            Packed::Lz4(decoder) => {
                let whole = read_to(decoder, &mut self.unpacked, goal, limit);
                let whole = whole.map_err(failed(codec))?;
                let behind = decoder.get_ref().get_ref().len();
                if whole == Some(true) && behind > 0 {
                    return Err(BatchError::Compressed {
                        codec,
                        reason: format!("{behind} bytes follow its frame"),
                    });
                }
                whole.ok_or_else(|| self.expands())
            }
            Packed::Xerial(input) => {
                while !input.is_empty() && self.unpacked.len() < goal {
                    let block = xerial_block(input)?;
                    snappy_block(&block, &mut self.unpacked, limit)?;
                }
                Ok(input.is_empty())
            }
            Packed::RawSnappy(block) => {
                let block = std::mem::take(block);
                if !block.is_empty() {
                    snappy_block(&block, &mut self.unpacked, limit)?;
                }
                Ok(true)
            }
        }
    }

    /// Number of bytes decompressed so far; 0 for an uncompressed payload.
    pub fn unpacked_bytes(&self) -> usize {
        self.unpacked.len()
    }

    /// The records that [`Unpacking::step`] has decompressed so far.
    pub fn into_payload(self) -> Bytes {
        match self.packed {
            Packed::Plain(payload) => payload,
            _ => Bytes::from(self.unpacked),
        }
    }

    fn expands(&self) -> BatchError {
        BatchError::Expands {
            codec: self.codec,
            limit: self.limit,
        }
    }
}

impl fmt::Debug for Unpacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacking")
            .field("codec", &self.codec)
            .field("unpacked_bytes", &self.unpacked.len())
            .finish_non_exhaustive()
    }
}

/// Decompresses to at most `limit` bytes. An uncompressed payload is returned as it is.
pub(super) fn decompress(
    codec: Compression,
    payload: Bytes,
    limit: usize,
) -> Result<Bytes, BatchError> {
    let mut unpacking = Unpacking::new(codec, payload, limit)?;
    while !unpacking.step(limit.max(FIRST_READ_BYTES))? {}
    Ok(unpacking.into_payload())
}

fn failed(codec: Compression) -> impl Fn(io::Error) -> BatchError {
    move |error| BatchError::Compressed {
        codec,
        reason: error.to_string(),
    }
}

fn zstd<R: io::BufRead>(input: R) -> io::Result<zstd::Decoder<'static, R>> {
    let mut decoder = zstd::Decoder::with_buffer(input)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// Reads up to `goal` bytes in all. Returns `None` past `limit`, and otherwise `true` at the end. Memory
/// grows with the bytes read, at most by doubling, and never past the bound.
fn read_to(
    decoder: &mut impl Read,
    out: &mut Vec<u8>,
    goal: usize,
    limit: usize,
) -> io::Result<Option<bool>> {
    while out.len() < goal {
        let room = limit.saturating_sub(out.len()).saturating_add(1);
        let grown = out.len().max(FIRST_READ_BYTES).min(room);
        let step = grown.min(goal - out.len());
        if out.capacity() - out.len() < step {
            out.reserve_exact(grown);
        }
        let read = decoder.by_ref().take(step as u64).read_to_end(out)?;
        if out.len() > limit {
            return Ok(None);
        }
        if read < step {
            return Ok(Some(true));
        }
    }
    Ok(Some(false))
}

fn snappy(mut payload: Bytes) -> Result<Packed, BatchError> {
    if !payload.starts_with(XERIAL_MAGIC) {
        return Ok(Packed::RawSnappy(payload));
    }
    if payload.len() < XERIAL_HEADER_BYTES {
        return Err(not_snappy("it is cut short within its header"));
    }
    payload.advance(XERIAL_HEADER_BYTES);
    Ok(Packed::Xerial(payload))
}

/// The next block of the xerial framing.
fn xerial_block(input: &mut Bytes) -> Result<Bytes, BatchError> {
    let length = input.try_get_i32().ok();
    let length = length.and_then(|length| usize::try_from(length).ok());
    let length = length.filter(|length| *length <= input.len());
    let length = length.ok_or_else(|| not_snappy("a block extends past the batch"))?;
    Ok(input.split_to(length))
}

/// Decompresses one raw snappy block to the end of `out`.
fn snappy_block(block: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), BatchError> {
    let claimed = snap::raw::decompress_len(block).map_err(not_snappy)?;
    if claimed > limit.saturating_sub(out.len()) {
        return Err(BatchError::Expands {
            codec: Compression::Snappy,
            limit,
        });
    }
    if claimed > block.len().saturating_mul(SNAPPY_MAX_RATIO) {
        return Err(not_snappy("it states an impossible length"));
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
