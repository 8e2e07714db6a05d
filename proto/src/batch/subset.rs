//! A batch without some of its records: for who is to see only a part of it.

use bytes::{BufMut, Bytes, BytesMut};

use super::compression::compress;
use super::record::{NewRecord, Record, varint_len};
use super::view::{BEFORE_LENGTH_BYTES, BatchView, put_crc};
use super::{Compression, HEADER_BYTES};

impl BatchView {
    /// This batch with only these of its records, in order: each keeps its offset and its time, and
    /// the batch its base offset, producer and codec, unless that would make it longer. Its last
    /// offset delta becomes `last_offset_delta`, which must not be below that of the last record: who
    /// reads it goes on after that offset, whether there is a record at it or not.
    pub fn subset(
        &self,
        records: impl IntoIterator<Item = Record>,
        last_offset_delta: i32,
    ) -> Bytes {
        let mut bytes = BytesMut::from(&self.bytes()[..HEADER_BYTES]);
        let base_timestamp_ms = self.base_timestamp_ms();
        let (mut count, mut latest) = (0_i32, None);
        for record in records {
            count = count.saturating_add(1);
            latest = latest.max(Some(record.timestamp_ms));
            let record = NewRecord {
                offset_delta: record.offset_delta,
                timestamp_delta_ms: record.timestamp_ms.wrapping_sub(base_timestamp_ms),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &record.headers,
            };
            let body_bytes = record.body_bytes();
            bytes.reserve(varint_len(body_bytes as i64) + body_bytes);
            record.encode(body_bytes, &mut bytes);
        }
        let codec = pack(self.compression(), &mut bytes);
        let length = i32::try_from(bytes.len() - BEFORE_LENGTH_BYTES).unwrap_or(i32::MAX);
        put(&mut bytes, 8, &length.to_be_bytes());
        let others = i16::from_be_bytes([bytes[21], bytes[22]]) & !CODEC_BITS;
        let attributes = others | i16::from(codec.number());
        put(&mut bytes, 21, &attributes.to_be_bytes());
        put(&mut bytes, 23, &last_offset_delta.to_be_bytes());
        let latest = latest.unwrap_or(base_timestamp_ms);
        put(&mut bytes, 35, &latest.to_be_bytes());
        put(&mut bytes, 57, &count.to_be_bytes());
        put_crc(&mut bytes);
        bytes.freeze()
    }
}

/// Of the attributes.
const CODEC_BITS: i16 = 0x07;

/// Compresses what follows the header, if that makes it shorter; says which codec it has then.
fn pack(codec: Compression, bytes: &mut BytesMut) -> Compression {
    if codec == Compression::None {
        return codec;
    }
    match compress(codec, &bytes[HEADER_BYTES..]) {
        Ok(packed) if packed.len() < bytes.len() - HEADER_BYTES => {
            bytes.truncate(HEADER_BYTES);
            bytes.put_slice(&packed);
            codec
        }
        _ => Compression::None,
    }
}

/// Writes a field of the header, which is there whole.
fn put(header: &mut [u8], at: usize, field: &[u8]) {
    header[at..at + field.len()].copy_from_slice(field);
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, Header};
    use super::*;

    fn batch(codec: Compression) -> BatchView {
        let mut builder = BatchBuilder::new(codec, 1 << 20);
        let headers = [("a", Some("1")), ("a", None), ("b", Some(""))].map(|(key, value)| Header {
            key: key.to_owned(),
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
        });
        for number in 0..40_i64 {
            let value = format!("the value of record number {number}");
            let value = (number % 7 != 0).then_some(value.as_bytes());
            let key = (number % 5 != 0).then_some(&b"key"[..]);
            let time_ms = 1_000 - number * 3;
            assert!(builder.push(key, value, &headers, time_ms).unwrap());
        }
        builder.set_producer(7, 2, 100);
        BatchView::trusted(builder.build()).unwrap()
    }

    #[test]
    fn what_is_left_of_a_batch_is_as_it_was() {
        for codec in Compression::ALL {
            let whole = batch(codec);
            let records = whole.records(1 << 20).unwrap();
            let kept: Vec<Record> = records.iter().skip(3).step_by(3).cloned().collect();
            let left = BatchView::trusted(whole.subset(kept.clone(), 39)).unwrap();
            left.check_crc().unwrap();
            assert_eq!(left.records(1 << 20).unwrap(), kept, "{codec}");
            assert_eq!(left.compression(), codec);
            assert_eq!(left.last_offset_delta(), 39);
            assert_eq!(left.max_timestamp_ms(), kept[0].timestamp_ms);
            assert_eq!(
                (left.producer_id(), left.base_sequence()),
                (whole.producer_id(), whole.base_sequence())
            );
        }
    }

    #[test]
    fn what_would_be_longer_compressed_is_left_as_it_is() {
        for codec in Compression::ALL {
            let whole = batch(codec);
            let mut records = whole.records(1 << 20).unwrap();
            records.truncate(1);
            records[0].headers.clear();
            let left = BatchView::trusted(whole.subset(records.clone(), 0)).unwrap();
            left.check_crc().unwrap();
            assert_eq!(left.compression(), Compression::None, "{codec}");
            assert_eq!(left.records(1 << 20).unwrap(), records);
        }
    }
}
