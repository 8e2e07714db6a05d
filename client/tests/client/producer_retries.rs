//! Behaviour of a producer whose batches are refused or unanswered.

use std::time::Duration;

use futures_util::future::join_all;
use ropewalk_client::{Client, ErrorCode, ErrorKind, PendingAck, Producer, Record, RecordMetadata};

use crate::fake::{Act, Fake, TOPIC, soon};

/// One batch per record, all in flight at once.
async fn producer(client: &Client) -> Producer {
    let builder = client.producer(TOPIC).linger(Duration::ZERO);
    builder
        .batch_bytes(128)
        .in_flight(16)
        .build()
        .await
        .unwrap()
}

/// Values that take more than half a batch each.
fn value(number: usize) -> String {
    format!("{number:0>50}")
}

async fn send_all(producer: &Producer, numbers: std::ops::Range<usize>) -> Vec<PendingAck> {
    let mut tickets = Vec::new();
    for number in numbers {
        let record = Record::new().value(value(number)).partition(0);
        tickets.push(producer.send(record).await.unwrap());
    }
    tickets
}

async fn all(tickets: Vec<PendingAck>) -> Vec<RecordMetadata> {
    let ended = soon(join_all(tickets)).await;
    ended.into_iter().map(|ended| ended.unwrap()).collect()
}

fn in_order(fake: &Fake, count: usize) {
    let expected: Vec<String> = (0..count).map(value).collect();
    assert_eq!(fake.values(0), expected);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_sequence_and_written_once() {
    let fake = Fake::start(1, 1).await;
    fake.script(|seen| match seen.number {
        1 => Act::ObeyAndBreak,
        _ => Act::Obey,
    });
    let producer = producer(&fake.client().await).await;
    for number in 0..3 {
        let receipts = all(send_all(&producer, number..number + 1).await).await;
        assert_eq!(receipts[0].offset, number as u64);
    }
    in_order(&fake, 3);
    let sequences: Vec<i32> = fake.seen().iter().map(|seen| seen.sequence).collect();
    assert_eq!(sequences, [0, 1, 1, 2]);
}

#[tokio::test]
async fn order_is_kept_when_one_of_many_batches_in_flight_is_refused() {
    let fake = Fake::start(1, 1).await;
    fake.script(|seen| match seen.number {
        3 => Act::Refuse(ErrorCode::NotLeader),
        9 => Act::Refuse(ErrorCode::Overloaded),
        _ => Act::Obey,
    });
    let producer = producer(&fake.client().await).await;
    let receipts = all(send_all(&producer, 0..40).await).await;
    let offsets: Vec<u64> = receipts.iter().map(|receipt| receipt.offset).collect();
    assert_eq!(offsets, (0..40).collect::<Vec<u64>>());
    in_order(&fake, 40);
}

#[tokio::test]
async fn whatever_breaks_every_record_is_written_once_and_in_order() {
    let fake = Fake::start(3, 1).await;
    fake.script(|seen| match seen.number % 11 {
        2 => Act::ObeyAndBreak,
        5 => Act::Refuse(ErrorCode::NotLeader),
        6 => Act::Break,
        8 => Act::Refuse(ErrorCode::LeadershipLost),
        _ => Act::Obey,
    });
    let producer = producer(&fake.client().await).await;
    let receipts = all(send_all(&producer, 0..100).await).await;
    let offsets: Vec<u64> = receipts.iter().map(|receipt| receipt.offset).collect();
    assert_eq!(offsets, (0..100).collect::<Vec<u64>>());
    in_order(&fake, 100);
}

#[tokio::test]
async fn batches_follow_the_leader_with_its_hint_and_without() {
    for hints in [true, false] {
        let fake = Fake::start(3, 1).await;
        fake.world().hints = hints;
        let producer = producer(&fake.client().await).await;
        for (number, leader) in [(0, 1), (1, 3), (2, 2)] {
            fake.move_leader(0, leader);
            all(send_all(&producer, number..number + 1).await).await;
            assert_eq!(fake.seen().last().unwrap().node_id, leader);
        }
        in_order(&fake, 3);
    }
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_given_up_and_asked_again() {
    let fake = Fake::start(1, 1).await;
    fake.script(|seen| match seen.number {
        0 => Act::Ignore,
        _ => Act::Obey,
    });
    let client = fake.builder().request_timeout(Duration::from_millis(300));
    let producer = producer(&client.connect().await.unwrap()).await;
    all(send_all(&producer, 0..1).await).await;
    in_order(&fake, 1);
}

#[tokio::test]
async fn a_batch_whose_answer_stays_away_is_not_left_so_far_behind_that_it_is_forgotten() {
    let fake = Fake::start(1, 1).await;
    fake.script(|seen| match seen.number {
        5 => Act::ObeyInSilence,
        _ => Act::Obey,
    });
    let client = fake.builder().request_timeout(Duration::from_millis(300));
    let producer = producer(&client.connect().await.unwrap()).await;
    let receipts = all(send_all(&producer, 0..60).await).await;
    assert_eq!(receipts[5].offset, 5);
    in_order(&fake, 60);
}

/// The first batch is refused and runs into its delivery timeout while the second has no answer yet.
#[tokio::test]
async fn a_batch_under_way_behind_one_that_fails_goes_on_in_a_new_epoch() {
    let fake = Fake::start(1, 1).await;
    fake.script(|seen| match seen.number {
        0 => Act::RefuseLate(ErrorCode::NoLeader, 2),
        1 => Act::Ignore,
        _ => Act::Obey,
    });
    let client = fake.builder().request_timeout(Duration::from_millis(1_300));
    let client = client.connect().await.unwrap();
    let producer = client
        .producer(TOPIC)
        .linger(Duration::ZERO)
        .batch_bytes(128)
        .delivery_timeout(Duration::from_secs(2))
        .build()
        .await
        .unwrap();
    let first = send_all(&producer, 0..1).await.remove(0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = send_all(&producer, 1..2).await.remove(0);
    let error = soon(first).await.unwrap_err();
    assert!(!error.outcome_unknown(), "{error}");
    soon(second).await.unwrap();
    assert_eq!(fake.values(0), [value(1)]);
    let seen = fake.seen();
    let sent: Vec<_> = seen
        .iter()
        .map(|seen| (seen.epoch, seen.sequence))
        .collect();
    // Under sequence 0 of the same epoch it could be written beside its earlier try.
    assert_eq!(sent, [(0, 0), (0, 1), (1, 0)]);
}

#[tokio::test]
async fn a_record_that_is_not_acknowledged_in_time_fails_with_what_is_known() {
    for (act, unknown) in [
        (Act::Ignore, true),
        (Act::Refuse(ErrorCode::NoLeader), false),
    ] {
        let fake = Fake::start(1, 1).await;
        fake.script(move |_| act.clone());
        let client = fake.client().await;
        let builder = client
            .producer(TOPIC)
            .delivery_timeout(Duration::from_millis(700));
        let producer = builder.build().await.unwrap();
        let ticket = producer.send(Record::new().value("v")).await.unwrap();
        let error = soon(ticket).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.is_retryable());
        assert_eq!(error.outcome_unknown(), unknown, "{error}");

        // Later records are not affected.
        fake.script(|_| Act::Obey);
        let ticket = producer.send(Record::new().value("later")).await.unwrap();
        soon(ticket).await.unwrap();
        assert_eq!(fake.values(0), ["later"]);
    }
}

/// Found by the simulator: a record got the offset of another one, and was not in the log.
#[tokio::test]
async fn a_late_answer_of_a_former_leader_is_none_to_a_batch_the_new_one_holds() {
    let fake = Fake::start(2, 1).await;
    fake.script(|seen| match (seen.number, seen.node_id) {
        (0, _) => Act::ObeyLate(3),
        (_, 2) => Act::Ignore,
        _ => Act::Obey,
    });
    let client = fake.client().await;
    let builder = client
        .producer(TOPIC)
        .delivery_timeout(Duration::from_millis(700));
    let producer = builder.build().await.unwrap();
    for value in ["answered late", "never answered"] {
        let ticket = producer.send(Record::new().value(value)).await.unwrap();
        let error = soon(ticket).await.unwrap_err();
        assert!(error.outcome_unknown(), "{value}: {error}");
        fake.move_leader(0, 2);
    }
    let asked: Vec<u64> = fake.seen().iter().map(|seen| seen.node_id).collect();
    assert_eq!(asked, [1, 1, 2]);
    assert_eq!(fake.values(0), ["answered late"]);
}

#[tokio::test]
async fn a_producer_that_was_forgotten_goes_on_in_a_new_epoch() {
    let fake = Fake::start(1, 1).await;
    let producer = producer(&fake.client().await).await;
    all(send_all(&producer, 0..2).await).await;
    fake.world().logs[0].forget_producers();
    all(send_all(&producer, 2..5).await).await;
    in_order(&fake, 5);
    let last = fake.seen().pop().unwrap();
    assert_eq!((last.epoch, last.sequence), (1, 2));
}

#[tokio::test]
async fn a_forgotten_batch_whose_first_answer_was_lost_is_not_written_twice() {
    let fake = Fake::start(1, 1).await;
    let producer = producer(&fake.client().await).await;
    all(send_all(&producer, 0..1).await).await;
    fake.script(|seen| match seen.number {
        1 => Act::ObeyAndBreak,
        2 => Act::Refuse(ErrorCode::UnknownProducer),
        _ => Act::Obey,
    });
    let ticket = send_all(&producer, 1..2).await.remove(0);
    let error = soon(ticket).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownProducer));
    assert!(
        error.outcome_unknown(),
        "its first try may have been, and was, written"
    );
    all(send_all(&producer, 2..3).await).await;
    in_order(&fake, 3);
}

#[tokio::test]
async fn a_fenced_producer_stops_and_says_so() {
    let fake = Fake::start(1, 2).await;
    fake.script(|_| Act::Refuse(ErrorCode::ProducerFenced));
    let producer = producer(&fake.client().await).await;
    let ticket = send_all(&producer, 0..1).await.remove(0);
    let error = soon(ticket).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ProducerFenced));
    assert!(!error.outcome_unknown() && !error.is_retryable());
    let refused = producer.send(Record::new().value("v")).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::ProducerFenced));
}

#[tokio::test]
async fn a_batch_the_partition_will_never_take_fails_alone() {
    let fake = Fake::start(1, 1).await;
    fake.script(|seen| match seen.number {
        2 => Act::Refuse(ErrorCode::CorruptBatch),
        _ => Act::Obey,
    });
    let producer = producer(&fake.client().await).await;
    let ended = soon(join_all(send_all(&producer, 0..12).await)).await;
    let failed: Vec<usize> = (0..12).filter(|number| ended[*number].is_err()).collect();
    assert_eq!(failed, [2]);
    let expected: Vec<String> = (0..12).filter(|number| *number != 2).map(value).collect();
    assert_eq!(fake.values(0), expected);
}
