//! Taking records out of a batch. What is left keeps its header, and so its offsets, its producer and
//! its times, even when no record is left: a log of such batches replays as that of the whole ones.
//!
//! The result depends on which records stay, and on nothing else: in how many steps the others were
//! taken does not show. So the codec stays even where it no longer pays.

use bytes::{BufMut, Bytes, BytesMut};

use super::compression::compress;
use super::view::{BEFORE_LENGTH_BYTES, CODEC_BITS, attributes, put_crc};
use super::{BatchError, BatchView, Compression, HEADER_BYTES, Record};

impl BatchView {
    /// The batch with the records that `keep` says yes to; none if that is all of them.
    ///
    /// # Errors
    /// As for [`BatchView::iter_records`]: of a batch that does not unpack nothing can be taken.
    pub fn retain(
        &self,
        max_decompressed_bytes: usize,
        mut keep: impl FnMut(&Record) -> bool,
    ) -> Result<Option<Bytes>, BatchError> {
        let mut records = self.iter_records(max_decompressed_bytes)?;
        let mut kept = BytesMut::new();
        let (mut count, mut from) = (0, 0);
        let mut whole = true;
        while let Some(record) = records.next() {
            let stays = keep(&record?);
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
        self.with_records(count, &kept).map(Some)
    }

    /// The batch under its own header with other records.
    fn with_records(&self, count: i32, records: &[u8]) -> Result<Bytes, BatchError> {
        let codec = self.compression();
        let (codec, payload) = match records.is_empty() {
            true => (Compression::None, Vec::new()),
            false => (codec, packed(codec, records)?),
        };
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        bytes.put_slice(self.bytes().get(..HEADER_BYTES).unwrap_or_default());
        bytes.put_slice(&payload);
        let length = i32::try_from(bytes.len() - BEFORE_LENGTH_BYTES).unwrap_or(i32::MAX);
        let attributes = attributes(self.bytes()) & !CODEC_BITS | i16::from(codec.number());
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
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
        let left = batch.retain(ROOM, |record| keep(record.offset_delta));
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
            assert_eq!(
                left.retain(ROOM, |_| false),
                Ok(None),
                "nothing is left to take"
            );
        }
    }

    #[test]
    fn a_batch_that_keeps_everything_is_not_made_anew() {
        let whole = batch(Compression::Zstd, 5);
        assert_eq!(whole.retain(ROOM, |_| true), Ok(None));
    }

    #[test]
    fn a_batch_that_does_not_unpack_is_named_and_left_alone() {
        let whole = batch(Compression::Lz4, 200);
        assert!(matches!(
            whole.retain(1_000, |_| false),
            Err(BatchError::Expands { .. })
        ));
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
