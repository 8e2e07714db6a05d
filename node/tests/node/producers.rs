//! Producer ids and epochs as clients see them: allocated once, and distinct from made-up ones.

use std::time::Duration;

use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::v1::InitProducerRequest;
use tokio::time::{Instant, timeout};

use crate::support::{Node, batch};

async fn init(node: &Node, producer_id: u64, producer_epoch: u32) -> (u64, u32) {
    let request = InitProducerRequest {
        producer_id,
        producer_epoch,
    };
    let answer = node.client.clone().init_producer(request).await;
    let answer = answer.expect("an answer").into_inner();
    (answer.producer_id, answer.producer_epoch)
}

#[tokio::test]
async fn an_id_that_was_given_to_nobody_is_refused_without_a_trace() {
    let mut node = Node::start().await;
    let (id, _) = init(&node, 0, 0).await;
    assert_eq!(
        node.produce(0, batch((id as i64, 0, 0), &[b"a"])).await,
        Ok(1)
    );
    let began = Instant::now();
    for made_up in [0, 5_000, i64::MAX] {
        let refused = node.produce(0, batch((made_up, 0, 0), &[b"x"])).await;
        let (code, message) = refused.expect_err("refused");
        assert_eq!(code, ErrorCode::UnknownProducer, "{message}");
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(node.fetch(0, 0).await.high_watermark, 2);
    node.still_serves().await;
}

#[tokio::test]
async fn many_who_make_ids_up_hold_up_nobody() {
    let mut node = Node::start().await;
    let (id, _) = init(&node, 0, 0).await;
    let strangers: Vec<_> = (0..200)
        .map(|n| {
            let mut client = node.client.clone();
            tokio::spawn(async move {
                let request = ropewalk_proto::v1::ProduceRequest {
                    topic: crate::support::TOPIC.to_string(),
                    batch: batch((1_000_000 + n, 0, 0), &[b"x"]),
                    ..Default::default()
                };
                let answers = client.produce(futures_util::stream::iter([request])).await;
                let answer = answers.expect("opens").into_inner().message().await;
                answer.expect("lives").expect("an answer").error
            })
        })
        .collect();
    let known = node.produce(0, batch((id as i64, 0, 0), &[b"a"]));
    let known = timeout(Duration::from_secs(5), known).await;
    assert_eq!(known.expect("in time"), Ok(1));
    for stranger in strangers {
        let ended = timeout(Duration::from_secs(10), stranger).await;
        let error = ended.expect("in time").expect("no panic");
        assert_eq!(
            error.expect("refused").code,
            ErrorCode::UnknownProducer as u32
        );
    }
    node.still_serves().await;
}

#[tokio::test]
async fn of_two_who_take_over_a_producer_the_later_fences_the_other() {
    let mut node = Node::start().await;
    let (id, epoch) = init(&node, 0, 0).await;
    let (one, other) = tokio::join!(init(&node, id, epoch), init(&node, id, epoch));
    assert_eq!((one.0, other.0), (id, id));
    let mut epochs = [one.1, other.1];
    epochs.sort_unstable();
    assert_eq!(epochs, [1, 2]);
    let id = id as i64;
    assert_eq!(node.produce(0, batch((id, 1, 0), &[b"a"])).await, Ok(1));
    assert_eq!(node.produce(0, batch((id, 2, 0), &[b"b"])).await, Ok(2));
    let fenced = node.produce(0, batch((id, 1, 1), &[b"c"])).await;
    assert_eq!(fenced.expect_err("refused").0, ErrorCode::ProducerFenced);
    // No epoch is left after the last one: the producer gets a new id.
    let (new, epoch) = init(&node, id as u64, i16::MAX as u32).await;
    assert_ne!(new, id as u64);
    assert_eq!(epoch, 0);
    node.still_serves().await;
}
