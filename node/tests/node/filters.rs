//! Fetches with a filter, at the level of the wire protocol.

use bytes::Bytes;
use ropewalk_proto::batch::{BatchBuilder, BatchView, Compression, Header};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;

use crate::support::{Node, TOPIC};

/// A batch of records with these types, each with a value of `size` bytes.
fn typed(codec: Compression, types: &[&str], size: usize) -> Bytes {
    let mut builder = BatchBuilder::new(codec, 1 << 20);
    for kind in types {
        let header = Header {
            key: "ce_type".to_owned(),
            value: Some(Bytes::copy_from_slice(kind.as_bytes())),
        };
        let value = vec![b'v'; size];
        let added = builder.push(Some(b"key"), Some(&value), &[header], 1);
        assert!(added.expect("a record"));
    }
    builder.build()
}

/// A node with a batch of each codec after its first record: `a b a` at 1, 4, 7, 10 and 13.
async fn with_batches() -> Node {
    let mut node = Node::start().await;
    for codec in Compression::ALL {
        let batch = typed(codec, &["a", "b", "a"], 200);
        node.produce(0, batch).await.expect("written");
    }
    node
}

async fn fetch(node: &mut Node, offset: u64, filter: &str, max_bytes: u32) -> v1::FetchResponse {
    let request = v1::FetchRequest {
        topic: TOPIC.to_string(),
        offset,
        max_bytes,
        filter: filter.to_string(),
        ..Default::default()
    };
    let requests = futures_util::stream::iter([request]);
    let answers = node.client.fetch(requests).await.expect("opens");
    let answer = answers.into_inner().message().await;
    answer.expect("the stream lives").expect("an answer")
}

fn offsets(answer: &v1::FetchResponse) -> Vec<u64> {
    let mut offsets = Vec::new();
    for fetched in &answer.batches {
        let view = BatchView::trusted(fetched.batch.clone()).expect("a batch");
        view.check_crc().expect("whole");
        for record in view.records(1 << 20).expect("records") {
            offsets.push(fetched.base_offset + record.offset_delta as u64);
            assert!(answer.next_offset > offsets.last().copied(), "it is passed");
        }
    }
    offsets
}

#[tokio::test]
async fn an_answer_has_what_matches_and_says_how_far_was_looked() {
    let mut node = with_batches().await;
    let answer = fetch(&mut node, 0, "type == 'b'", 1 << 20).await;
    assert_eq!(answer.error, None);
    assert_eq!(offsets(&answer), [2, 5, 8, 11, 14]);
    assert_eq!((answer.next_offset, answer.high_watermark), (Some(16), 16));

    let none = fetch(&mut node, 0, "type == 'c'", 1 << 20).await;
    assert_eq!((none.batches.len(), none.next_offset), (0, Some(16)));
    let at_the_end = fetch(&mut node, 16, "type == 'c'", 1 << 20).await;
    assert_eq!(
        (at_the_end.batches.len(), at_the_end.next_offset),
        (0, Some(16))
    );

    let unfiltered = fetch(&mut node, 0, "", 1 << 20).await;
    assert_eq!(unfiltered.next_offset, None);
    let all = fetch(&mut node, 0, "timestamp >= 0", 1 << 20).await;
    assert_eq!(
        all.batches, unfiltered.batches,
        "what matches whole is untouched"
    );

    let (mut at, mut found) = (0, Vec::new());
    while at < 16 {
        let answer = fetch(&mut node, at, "type == 'a'", 1).await;
        found.extend(offsets(&answer));
        let next = answer.next_offset.expect("it was applied");
        assert!(next > at, "it goes on");
        at = next;
    }
    assert_eq!(found, [1, 3, 4, 6, 7, 9, 10, 12, 13, 15]);
    node.still_serves().await;
}

#[tokio::test]
async fn an_invalid_filter_is_refused_with_its_place_and_costs_nothing() {
    let mut node = with_batches().await;
    let endless = "(".repeat(100_000);
    for (filter, place) in [
        ("type = 'a'", "line 1, column 6"),
        ("true &&\n typo", "line 2, column 2"),
        (endless.as_str(), "100000 bytes"),
    ] {
        let error = fetch(&mut node, 0, filter, 1 << 20).await.error;
        let error = WireError::from(error.expect("refused"));
        assert_eq!(error.code, ErrorCode::InvalidFilter);
        assert!(error.message.contains(place), "{error}");
        let request = v1::CheckFilterRequest {
            filter: filter.to_owned(),
        };
        let refused = node
            .client
            .check_filter(request)
            .await
            .expect_err("refused");
        assert_eq!(WireError::from(&refused), error);
    }
    let request = v1::CheckFilterRequest {
        filter: "type == 'a'".to_owned(),
    };
    assert!(node.client.check_filter(request).await.is_ok());
    node.still_serves().await;
}

#[tokio::test]
async fn a_record_that_costs_too_much_is_named_and_neither_sent_nor_passed() {
    let mut node = with_batches().await;
    let large = typed(Compression::Zstd, &["a", "large", "a"], 100_000);
    assert_eq!(node.produce(0, large).await, Ok(16));
    // The fetch must not return the next record in place of it.
    let behind = typed(Compression::None, &["a"], 10);
    assert_eq!(node.produce(0, behind).await, Ok(19));
    let filter = "type != 'large' || value.matches('y')";
    let before = fetch(&mut node, 15, filter, 1 << 20).await;
    assert_eq!(
        (offsets(&before), before.next_offset),
        (vec![15, 16], Some(17))
    );
    let error = fetch(&mut node, 17, filter, 1 << 20).await.error;
    let error = WireError::from(error.expect("refused"));
    assert_eq!(error.code, ErrorCode::FilterTooCostly);
    assert!(error.message.contains("offset 17 of"), "{error}");
    let after = fetch(&mut node, 18, filter, 1 << 20).await;
    assert_eq!(
        (offsets(&after), after.next_offset),
        (vec![18, 19], Some(20))
    );
    let bounded = "type != 'large' || size(value) < 1000 && value.matches('y')";
    let after = fetch(&mut node, 17, bounded, 1 << 20).await;
    assert_eq!(
        (offsets(&after), after.next_offset),
        (vec![18, 19], Some(20))
    );
    node.still_serves().await;
}

#[tokio::test]
async fn each_fetch_of_a_stream_has_the_filter_it_carries() {
    let mut node = with_batches().await;
    let asked = ["type == 'b'", "type == 'c'", "offset > 9", "type == 'b'"];
    let requests = asked.map(|filter| v1::FetchRequest {
        topic: TOPIC.to_owned(),
        max_bytes: 1 << 20,
        filter: filter.to_owned(),
        ..v1::FetchRequest::default()
    });
    let opened = node.client.fetch(futures_util::stream::iter(requests));
    let mut answers = opened.await.expect("the stream opens").into_inner();
    let middle = vec![2, 5, 8, 11, 14];
    for expected in [middle.clone(), vec![], (10..16).collect(), middle] {
        let answer = answers.message().await.expect("the stream lives");
        assert_eq!(offsets(&answer.expect("an answer")), expected);
    }
    node.still_serves().await;
}
