//! Checks that each record of RocksDB's manifests and write-ahead logs is whole.
//!
//! The format is RocksDB's `db/log_format.h`, read as `db/log_reader.cc` does. A file consists of blocks of
//! 32 KiB. A record has a masked CRC-32C of everything after the length, a length of two bytes, a type, and
//! the content. Zeros fill a block in which no further header fits. Content that does not fit into a block
//! spans several records. RocksDB writes four types here; the others belong to features that are off.
//!
//! The meaning of records must never come in here: RocksDB reads it.

pub(super) const BLOCK_BYTES: usize = 32 << 10;
pub(super) const HEADER_BYTES: usize = 7;

/// Position at which a file is not as RocksDB writes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub at: u64,
    pub what: &'static str,
}

impl Bad {
    pub(super) fn told(&self) -> String {
        format!("is damaged at byte {}: {}", self.at, self.what)
    }
}

/// Part of an edit or a batch that a record holds. A large one spans several records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Full,
    First,
    Middle,
    Last,
}

/// Item found in a file.
enum Found {
    Record {
        part: Part,
        bytes: usize,
    },
    /// Zeros up to the next block.
    Filler {
        bytes: usize,
    },
    /// Nothing after this was written completely.
    End,
}

/// Checks the content of a file from `from` on, where an edit begins. Returns the end of the last whole
/// edit.
pub(super) fn walk(content: &[u8], from: u64) -> Result<u64, Bad> {
    let (mut rest, mut at) = (content, from);
    let mut whole_bytes = from;
    let mut in_edit = false;
    loop {
        let bad = |what| Bad { at, what };
        let in_block = BLOCK_BYTES - (at % BLOCK_BYTES as u64) as usize;
        let bytes = match next(rest, in_block).map_err(bad)? {
            Found::Record { part, bytes } => {
                if in_edit != matches!(part, Part::Middle | Part::Last) {
                    return Err(bad("some parts of a write are missing"));
                }
                in_edit = matches!(part, Part::First | Part::Middle);
                if !in_edit {
                    whole_bytes = at + bytes as u64;
                }
                bytes
            }
            Found::Filler { bytes } => bytes,
            Found::End => return Ok(whole_bytes),
        };
        at += bytes as u64;
        rest = rest.get(bytes..).unwrap_or_default();
    }
}

/// Reads the item at the beginning of `rest`, with `in_block` bytes left in the block.
fn next(rest: &[u8], in_block: usize) -> Result<Found, &'static str> {
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    if in_block < HEADER_BYTES {
        let filler = rest.get(..in_block);
        return match filler.unwrap_or(rest) {
            bytes if !is_zero(bytes) => Err("bytes follow where no record fits"),
            _ if filler.is_none() => Ok(Found::End),
            _ => Ok(Found::Filler { bytes: in_block }),
        };
    }
    let Some(&[sum0, sum1, sum2, sum3, low, high, kind]) = rest.first_chunk() else {
        return Ok(Found::End);
    };
    let length = usize::from(u16::from_le_bytes([low, high]));
    if kind == 0 && length == 0 {
        // A file system may show a file's new length before its bytes.
        return match is_zero(rest) {
            true => Ok(Found::End),
            false => Err("there is a gap"),
        };
    }
    let part = match kind {
        1 => Part::Full,
        2 => Part::First,
        3 => Part::Middle,
        4 => Part::Last,
        // Even if the record is cut short: RocksDB would look at the type first.
        _ => return Err("a record has an unknown type"),
    };
    let bytes = HEADER_BYTES + length;
    if bytes > in_block {
        return Err("a record is longer than its block");
    }
    let sum = u32::from_le_bytes([sum0, sum1, sum2, sum3]);
    match matches(rest, length, sum) {
        Some(true) => Ok(Found::Record { part, bytes }),
        Some(false) => Err("a record does not match its checksum"),
        None if was_shorter(rest, length, sum) => Err("one bit of a record's length is flipped"),
        None => Ok(Found::End),
    }
}

/// Compares a record of that length with a checksum that covers it from the type on; `None` if the record
/// is cut short.
fn matches(rest: &[u8], length: usize, sum: u32) -> Option<bool> {
    let covered = rest.get(HEADER_BYTES - 1..HEADER_BYTES + length)?;
    Some(masked(crc32c::crc32c(covered)) == sum)
}

/// Returns true if a record that runs past the end is whole except for one bit of its length.
fn was_shorter(rest: &[u8], length: usize, sum: u32) -> bool {
    let mut lengths = (0..16).map(|bit| length ^ (1 << bit));
    lengths.any(|length| matches(rest, length, sum) == Some(true))
}

/// Masks a checksum like RocksDB's `util/crc32c.h`, since other checksums may cover the stored one.
pub(super) fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}
