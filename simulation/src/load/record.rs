//! Records of this run's producers, and the names that identify them. The name is in a header, since a value
//! may be empty or missing.

use bytes::Bytes;
use ropewalk_client::{Header, Record};

use crate::history::RecordName;

/// The header that holds the name.
const NAME: &str = "name";

/// A record of the load.
#[derive(Debug, Clone)]
pub struct Made {
    /// The record to send.
    pub record: Record,
    /// Its [`content`].
    pub content: u32,
}

/// Value of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// None: a tombstone.
    Tombstone,
    /// This many bytes.
    Bytes(usize),
}

/// Creates the record of a name.
pub fn make(name: RecordName, key: Option<u32>, value: Value) -> Made {
    let key = key.map(|key| Bytes::from(format!("key-{key}")));
    let value = match value {
        Value::Tombstone => None,
        Value::Bytes(length) => Some(bytes_of(name, length)),
    };
    let content = content(key.as_deref(), value.as_deref());
    let header = named(name);
    let mut record = Record::new().header(header.key, header.value.unwrap_or_default());
    if let Some(key) = key {
        record = record.key(key);
    }
    if let Some(value) = value {
        record = record.value(value);
    }
    Made { record, content }
}

/// The header that holds a name.
pub fn named(name: RecordName) -> Header {
    Header {
        key: NAME.to_owned(),
        value: Some(Bytes::from(format!("{} {}", name.0, name.1))),
    }
}

/// Bytes that differ from record to record, and that a compressor finds neither empty nor random.
pub fn bytes_of((producer, number): RecordName, length: usize) -> Bytes {
    let seed = (u64::from(producer) << 32) ^ number;
    let words = (0_u64..).flat_map(|word| (seed ^ (word / 4)).to_le_bytes());
    words.take(length).collect()
}

/// The name of a record with these headers; none if no producer of a run made it.
pub fn name(headers: &[Header]) -> Option<RecordName> {
    let header = headers.iter().find(|header| header.key == NAME)?;
    let text = std::str::from_utf8(header.value.as_deref()?).ok()?;
    let (producer, number) = text.split_once(' ')?;
    Some((producer.parse().ok()?, number.parse().ok()?))
}

/// The number of a key.
pub fn key(key: Option<&[u8]>) -> Option<u32> {
    let text = std::str::from_utf8(key?).ok()?;
    text.strip_prefix("key-")?.parse().ok()
}

/// Checksum of a key and a value; a missing one differs from an empty one.
pub fn content(key: Option<&[u8]>, value: Option<&[u8]>) -> u32 {
    [key, value].iter().fold(0, |crc, part| match part {
        None => crc32c::crc32c_append(crc, &[0]),
        Some(part) => crc32c::crc32c_append(crc32c::crc32c_append(crc, &[1]), part),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_by_its_header() {
        let header = |value: &'static str| Header {
            key: NAME.to_owned(),
            value: Some(Bytes::from_static(value.as_bytes())),
        };
        assert_eq!(name(&[header("7 12")]), Some((7, 12)));
        assert_eq!(name(&[header("7")]), None);
        assert_eq!(name(&[]), None);
        assert_eq!(key(Some(b"key-4")), Some(4));
        assert_eq!(key(Some(b"other")), None);
    }

    #[test]
    fn contents_that_differ_have_sums_that_differ() {
        let sums = [
            content(None, None),
            content(Some(b""), None),
            content(None, Some(b"")),
            content(Some(b"a"), Some(b"b")),
            content(Some(b"b"), Some(b"a")),
            make((1, 1), None, Value::Bytes(20)).content,
            make((1, 2), None, Value::Bytes(20)).content,
        ];
        let distinct: std::collections::BTreeSet<u32> = sums.into_iter().collect();
        assert_eq!(distinct.len(), sums.len());
    }
}
