//! Removes records from a batch: compaction does it in the log, a filter for one reader. The remaining
//! records stay unchanged under the same header. So the batch keeps its offsets, producer and times, even
//! if no record remains. A log of such batches replays like one of the whole batches.
//!
//! The result depends only on the records that stay, not on the steps in which the others were removed. So
//! the codec stays even if it no longer pays.

use bytes::{BufMut, Bytes, BytesMut};

use super::compression::compress;
use super::view::{BEFORE_LENGTH_BYTES, CODEC_BITS, attributes, put_crc};
use super::{BatchError, BatchView, Compression, HEADER_BYTES, Record, Records};

impl BatchView {
    /// The batch with those records up to `last_offset_delta` for which `keep` returns true; `None` if that
    /// is the whole batch. The new batch ends with that delta, so a reader continues after it, even if no
    /// record is there. `records` must be those of this batch, with none read yet.
    ///
    /// # Errors
    /// As for [`BatchView::records`]: no record can be removed from a batch that does not decompress.
    pub fn retain(
        &self,
        mut records: Records,
        last_offset_delta: i32,
        mut keep: impl FnMut(&Record) -> bool,
    ) -> Result<Option<Bytes>, BatchError> {
        let mut kept = BytesMut::new();
        let (mut count, mut from) = (0, 0);
        let mut whole = last_offset_delta >= self.last_offset_delta();
        while let Some(record) = records.next() {
            let record = record?;
            if record.offset_delta > last_offset_delta {
                break;
            }
            let stays = keep(&record);
            let (payload, to) = records.read_to();
            if stays {
                kept.put_slice(payload.get(from..to).unwrap_or_default());
                count += 1;
            }
            whole &= stays;
            from = to;
        }
        if whole {
            return Ok(None);
        }
        self.with_records(count, &kept, last_offset_delta).map(Some)
    }

    /// The batch with the same header and other records.
    fn with_records(
        &self,
        count: i32,
        records: &[u8],
        last_offset_delta: i32,
    ) -> Result<Bytes, BatchError> {
        let codec = self.compression();
        let (codec, payload) = match records.is_empty() {
            true => (Compression::None, Vec::new()),
            false => (codec, packed(codec, records)?),
        };
        let last_offset_delta = last_offset_delta.min(self.last_offset_delta());
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        bytes.put_slice(self.bytes().get(..HEADER_BYTES).unwrap_or_default());
        bytes.put_slice(&payload);
        let length = i32::try_from(bytes.len() - BEFORE_LENGTH_BYTES).unwrap_or(i32::MAX);
        let attributes = attributes(self.bytes()) & !CODEC_BITS | i16::from(codec.number());
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
        bytes[23..27].copy_from_slice(&last_offset_delta.to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        put_crc(&mut bytes);
        Ok(bytes.freeze())
    }
}

fn packed(codec: Compression, records: &[u8]) -> Result<Vec<u8>, BatchError> {
    compress(codec, records).map_err(|error| BatchError::Compressed {
        codec,
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{BatchBuilder, Header, Limits};
    use super::*;

    const ROOM: usize = 1 << 20;

    fn batch(codec: Compression, count: u8) -> BatchView {
        let mut builder = BatchBuilder::new(codec, ROOM);
        for n in 0..count {
            let header = Header {
                key: "n".into(),
                value: Some(Bytes::from(vec![n; 3])),
            };
            let value = [n; 100];
            let value = (!n.is_multiple_of(3)).then_some(&value[..]);
            let pushed = builder.push(Some(&[n]), value, &[header], 1_000 + i64::from(n));
            assert!(pushed.unwrap());
        }
        builder.set_producer(7, 2, 40);
        BatchView::check(builder.build(), &Limits::new(ROOM as u32)).unwrap()
    }

    fn retained(batch: &BatchView, keep: impl Fn(i32) -> bool) -> BatchView {
        let records = batch.iter_records(ROOM).unwrap();
        let left = batch.retain(records, i32::MAX, |record| keep(record.offset_delta));
        let left = BatchView::trusted(left.unwrap().unwrap_or(batch.bytes().clone())).unwrap();
        left.check_crc().unwrap();
        left
    }

    #[test]
    fn what_stays_is_as_it_was_under_the_same_header() {
        for codec in Compression::ALL {
            let whole = batch(codec, 20);
            let left = retained(&whole, |delta| delta % 4 == 1);
            let expected = whole.records(ROOM).unwrap();
            let expected: Vec<Record> = expected
                .into_iter()
                .filter(|record| record.offset_delta % 4 == 1)
                .collect();
            assert_eq!(left.records(ROOM).unwrap(), expected, "{codec}");
            assert_eq!((left.offset_count(), left.record_count()), (20, 5));
            assert_eq!(left.compression(), codec);
            let header = |batch: &BatchView| {
                let producer = (batch.producer_id(), batch.producer_epoch());
                let times = (batch.base_timestamp_ms(), batch.max_timestamp_ms());
                (producer, batch.base_sequence(), times)
            };
            assert_eq!(header(&left), header(&whole));
        }
    }

    #[test]
    fn a_batch_without_a_record_left_is_a_header() {
        for codec in Compression::ALL {
            let left = retained(&batch(codec, 5), |_| false);
            assert_eq!(left.bytes().len(), HEADER_BYTES);
            assert_eq!((left.offset_count(), left.record_count()), (5, 0));
            assert_eq!(left.records(ROOM), Ok(vec![]));
            let records = left.iter_records(ROOM).unwrap();
            let again = left.retain(records, i32::MAX, |_| false);
            assert_eq!(again, Ok(None), "nothing is left to take");
        }
    }

    #[test]
    fn a_batch_that_keeps_everything_is_not_made_anew() {
        let whole = batch(Compression::Zstd, 5);
        let records = || whole.iter_records(ROOM).unwrap();
        assert_eq!(whole.retain(records(), 4, |_| true), Ok(None));
        assert!(whole.retain(records(), 3, |_| true).unwrap().is_some());
    }

    #[test]
    fn a_batch_that_is_cut_ends_there_and_nothing_behind_it_is_looked_at() {
        for codec in Compression::ALL {
            let whole = batch(codec, 20);
            let records = whole.iter_records(ROOM).unwrap();
            let left = whole.retain(records, 9, |record| {
                assert!(record.offset_delta <= 9);
                record.offset_delta % 2 == 0
            });
            let left = BatchView::trusted(left.unwrap().unwrap()).unwrap();
            left.check_crc().unwrap();
            assert_eq!((left.last_offset_delta(), left.record_count()), (9, 5));
            let kept = left.records(ROOM).unwrap();
            let deltas: Vec<i32> = kept.iter().map(|record| record.offset_delta).collect();
            assert_eq!(deltas, [0, 2, 4, 6, 8], "{codec}");
        }
    }

    #[test]
    fn a_batch_that_is_cut_short_within_a_record_is_named_and_left_alone() {
        let whole = batch(Compression::None, 20);
        let cut = whole.bytes().slice(..whole.bytes().len() - 7);
        let mut cut = BytesMut::from(&cut[..]);
        let length = (cut.len() - BEFORE_LENGTH_BYTES) as i32;
        cut[8..12].copy_from_slice(&length.to_be_bytes());
        let cut = BatchView::trusted(cut.freeze()).unwrap();
        let records = cut.iter_records(ROOM).unwrap();
        assert!(cut.retain(records, i32::MAX, |_| false).is_err());
    }

    proptest! {
        #[test]
        fn in_how_many_steps_records_go_does_not_show(
            codec in 0_usize..5,
            first in proptest::collection::vec(any::<bool>(), 30),
            then in proptest::collection::vec(any::<bool>(), 30),
        ) {
            let whole = batch(Compression::ALL[codec], 30);
            let in_two = retained(&retained(&whole, |n| first[n as usize]), |n| then[n as usize]);
            let at_once = retained(&whole, |n| first[n as usize] && then[n as usize]);
            prop_assert_eq!(in_two, at_once);
        }
    }
}
