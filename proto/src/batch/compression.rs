//! The five codecs of a batch, and compression with them.
//!
//! The bytes are those of Kafka's Java client: gzip, lz4 and zstd as plain frames, snappy in the
//! xerial framing.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use bytes::BufMut;

/// Compression codec of a batch's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// No compression.
    #[default]
    None,
    /// Small output, slow.
    Gzip,
    /// Fast, with moderately small output.
    Snappy,
    /// Fastest.
    Lz4,
    /// Small output and fast.
    Zstd,
}

impl Compression {
    /// All codecs.
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

    /// The codec's name in configuration.
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

/// A name of no codec.
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

const ZSTD_LEVEL: i32 = 3;

pub(super) const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// The magic, a version, and the oldest version that can read it; both are 1.
pub(super) const XERIAL_HEADER_BYTES: usize = 16;
/// Block size of the Java client.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

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
