//! The checksum over each stored value, since the disk is not trusted.
//!
//! It covers the key too, so a value found under another key is as damaged as one with a flipped bit. The
//! meaning of a value must never come in here.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::disk::{Change, DiskError};

/// Length of the checksum, which precedes the value.
pub(crate) const CRC_BYTES: usize = 4;

/// CRC-32C over a key and the parts of its value.
pub(crate) fn crc(key: &[u8], parts: &[&[u8]]) -> u32 {
    parts.iter().fold(crc32c::crc32c(key), |crc, part| {
        crc32c::crc32c_append(crc, part)
    })
}

/// The change that stores `value` under `key` with its checksum.
pub(crate) fn put(key: Bytes, value: Bytes) -> Change {
    let mut head = BytesMut::with_capacity(CRC_BYTES);
    head.put_u32(crc(&key, &[&value]));
    Change::Put {
        key,
        head: head.freeze(),
        body: value,
    }
}

/// Verifies the checksum of a stored pair and returns its value.
pub(crate) fn open(key: &[u8], mut stored: Bytes) -> Result<Bytes, DiskError> {
    if stored.len() < CRC_BYTES {
        return Err(damaged(key, "its value is shorter than a checksum"));
    }
    let expected = stored.get_u32();
    if crc(key, &[&stored]) != expected {
        return Err(damaged(key, "its checksum does not match"));
    }
    Ok(stored)
}

/// Error for a pair that is not as it was written.
pub(crate) fn damaged(key: &[u8], what: &str) -> DiskError {
    DiskError::Damaged(format!("key {} is damaged: {what}", hex(key)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
