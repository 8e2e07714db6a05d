//! Batches that decompress to a large size or to unreadable data, against a running node.

use bytes::Bytes;
use ropewalk_proto::batch::{BatchBuilder, BatchView, Compression, HEADER_BYTES};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::list_offsets_request::Position;

use crate::support::*;

/// A batch with one record of zeros, which compresses to a few KiB.
fn zeros(codec: Compression, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(codec, 64 << 20);
    let value = vec![0; bytes];
    let pushed = builder.push(Some(b"k"), Some(&value), &[], 1_000);
    assert!(pushed.expect("a record"));
    builder.build()
}

/// A valid header and CRC over bytes that are not records.
fn garbage(codec: Compression) -> Bytes {
    let mut bytes = zeros(codec, 10_000).to_vec();
    bytes[HEADER_BYTES..].fill(0xa5);
    let view = BatchView::trusted(bytes.into()).expect("a header");
    view.with_producer(-1, -1, -1)
}

#[tokio::test]
async fn what_nobody_could_read_is_not_acknowledged_in_whatever_codec() {
    let mut node = Node::start().await;
    for codec in Compression::ALL {
        let refused = node.produce(0, garbage(codec)).await;
        let (code, message) = refused.expect_err("garbage");
        assert_eq!(code, ErrorCode::CorruptBatch, "{codec}: {message}");
        if codec != Compression::None {
            let refused = node.produce(0, zeros(codec, 60 << 20)).await;
            let (code, message) = refused.expect_err("a bomb");
            assert_eq!(code, ErrorCode::TooLarge, "{codec}: {message}");
        }
        let good = node.produce(0, zeros(codec, 10_000)).await;
        good.expect("taken");
    }
    node.still_serves().await;
}

#[tokio::test]
async fn batches_of_one_stream_keep_their_order_whatever_must_be_unpacked() {
    let mut node = Node::start().await;
    let request = v1::InitProducerRequest::default();
    let given = node.client.init_producer(request).await.expect("an id");
    let producer_id = given.into_inner().producer_id.cast_signed();
    let requests: Vec<v1::ProduceRequest> = (0..60)
        .map(|number| {
            let (mut builder, large) = match number % 3 {
                0 => (BatchBuilder::new(Compression::Zstd, 1 << 20), 900_000),
                1 => (BatchBuilder::new(Compression::None, 1 << 20), 10),
                _ => (BatchBuilder::new(Compression::Lz4, 1 << 20), 10_000),
            };
            let pushed = builder.push(None, Some(&vec![0; large]), &[], 1_000);
            assert!(pushed.expect("a record"));
            builder.set_producer(producer_id, 0, number);
            v1::ProduceRequest {
                request_id: number as u64,
                topic: TOPIC.to_string(),
                batch: builder.build(),
                ..Default::default()
            }
        })
        .collect();
    let stream = futures_util::stream::iter(requests);
    let answers = node.client.produce(stream).await.expect("it opens");
    let mut answers = answers.into_inner();
    let mut offsets = vec![None; 60];
    while let Some(answer) = answers.message().await.expect("it lives") {
        assert_eq!(answer.error, None, "a gap, if one was overtaken");
        offsets[answer.request_id as usize] = Some(answer.base_offset);
    }
    let expected: Vec<Option<u64>> = (1..=60).map(Some).collect();
    assert_eq!(offsets, expected);
    node.still_serves().await;
}

#[tokio::test]
async fn lookups_that_unpack_past_the_budget_wait_and_publishing_goes_on() {
    // The first lookup exceeds the rate for a long time.
    let mut node = Node::start_with(|config| {
        config.limits.unpack_bytes_per_s = 16 << 20;
    })
    .await;
    let bomb = node.produce(0, zeros(Compression::Zstd, 7 << 20)).await;
    assert_eq!(bomb, Ok(1));
    let lookups: Vec<_> = (0..16)
        .map(|_| {
            let mut client = node.client.clone();
            let request = v1::ListOffsetsRequest {
                topic: TOPIC.to_string(),
                partition: 0,
                position: Some(Position::AtOrAfterMs(500)),
                ..Default::default()
            };
            tokio::spawn(async move { client.list_offsets(request).await })
        })
        .collect();
    for _ in 0..3 {
        node.publish(TOPIC, b"meanwhile").await.expect("published");
    }
    assert!(lookups.iter().any(|lookup| !lookup.is_finished()));
    for lookup in lookups {
        match lookup.await.expect("no panic") {
            Ok(found) => assert_eq!(found.into_inner().offset, 1),
            Err(status) => {
                let error = WireError::from(&status);
                assert_eq!(error.code, ErrorCode::Overloaded, "{error}");
            }
        }
    }
    node.still_serves().await;
}
