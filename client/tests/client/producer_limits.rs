//! Changes of a topic's settings during the life of a producer.

use std::time::Duration;

use futures_util::future::join_all;
use ropewalk_client::{Error, ErrorCode, ErrorKind, PendingAck, Producer, Record, RecordMetadata};
use ropewalk_proto::v1::Cleanup;

use crate::fake::{Fake, TOPIC, soon};

/// A producer whose batches accumulate until they are full or flushed.
async fn patient(fake: &Fake, batch_bytes: usize) -> Producer {
    let client = fake.client().await;
    let builder = client.producer(TOPIC).linger(Duration::from_secs(60));
    builder.batch_bytes(batch_bytes).build().await.unwrap()
}

async fn send(producer: &Producer, number: usize, bytes: usize) -> PendingAck {
    let value = format!("{number:0>bytes$}");
    let record = Record::new().key("k").value(value);
    producer.send(record).await.unwrap()
}

async fn ended(
    producer: &Producer,
    tickets: Vec<PendingAck>,
) -> Vec<Result<RecordMetadata, Error>> {
    let flushed = soon(producer.flush()).await;
    let ended = soon(join_all(tickets)).await;
    assert_eq!(
        flushed.is_ok(),
        ended.iter().all(Result::is_ok),
        "{flushed:?}"
    );
    ended
}

/// The numbers in the log, in order.
fn logged(fake: &Fake) -> Vec<usize> {
    let values = fake.values(0);
    values.iter().map(|value| value.parse().unwrap()).collect()
}

#[tokio::test]
async fn batches_over_a_limit_that_was_lowered_are_sent_in_parts_and_in_order() {
    let fake = Fake::start(1, 1).await;
    for batch_bytes in [64 << 10, 4_000] {
        let producer = patient(&fake, batch_bytes).await;
        let before = logged(&fake).len();
        fake.world().max_batch_bytes = 1 << 20;
        let first = send(&producer, 0, 100).await;
        ended(&producer, vec![first]).await[0].as_ref().unwrap();
        fake.world().max_batch_bytes = 1_500;
        let mut tickets = Vec::new();
        for number in 1..=300 {
            tickets.push(send(&producer, number, 100).await);
        }
        for (number, receipt) in (1..).zip(ended(&producer, tickets).await) {
            assert_eq!(receipt.unwrap().offset, before as u64 + number);
        }
        assert_eq!(logged(&fake)[before..], (0..=300).collect::<Vec<_>>());

        // Later batches fit at once.
        let asked = fake.seen().len();
        let tickets = [send(&producer, 1, 600).await, send(&producer, 2, 700).await];
        for receipt in ended(&producer, tickets.into()).await {
            receipt.unwrap();
        }
        assert_eq!(fake.seen().len(), asked + 1);
    }
}

#[tokio::test]
async fn a_record_over_a_limit_that_was_lowered_fails_alone() {
    let fake = Fake::start(1, 1).await;
    let producer = patient(&fake, 64 << 10).await;
    let mut tickets = Vec::new();
    for number in 0..20 {
        let bytes = if number == 7 { 3_000 } else { 100 };
        tickets.push(send(&producer, number, bytes).await);
    }
    fake.world().max_batch_bytes = 1_500;
    for (number, ended) in ended(&producer, tickets).await.into_iter().enumerate() {
        match ended {
            Err(error) if number == 7 => {
                assert_eq!(
                    (error.kind(), error.outcome_unknown()),
                    (ErrorKind::TooLarge, false)
                );
            }
            ended => assert_ne!((ended.unwrap().offset, number), (0, 7)),
        }
    }
    assert_eq!(
        logged(&fake),
        (0..20).filter(|number| *number != 7).collect::<Vec<_>>()
    );
    // From now on, the producer rejects such a record before it is sent.
    let large = Record::new().key("k").value(vec![b'0'; 3_000]);
    let error = producer.send(large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn a_record_that_fits_since_the_limit_was_raised_is_sent() {
    let fake = Fake::start(1, 1).await;
    fake.world().max_batch_bytes = 1_000;
    let producer = patient(&fake, 64 << 10).await;
    let large = || Record::new().key("k").value(vec![b'0'; 5_000]);
    let error = producer.send(large()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    fake.world().max_batch_bytes = 10_000;
    let ticket = producer.send(large()).await.unwrap();
    soon(producer.flush()).await.unwrap();
    soon(ticket).await.unwrap();
}

#[tokio::test]
async fn a_leader_that_has_yet_to_hear_of_a_raised_limit_is_asked_again() {
    use crate::fake::Act;

    let fake = Fake::start(1, 1).await;
    let producer = patient(&fake, 64 << 10).await;
    fake.script(|seen| match seen.number {
        0..3 => Act::Refuse(ErrorCode::TooLarge),
        _ => Act::Obey,
    });
    let ticket = send(&producer, 1, 100).await;
    ended(&producer, vec![ticket]).await[0].as_ref().unwrap();
    // If the partition keeps refusing, the batch fails in the end.
    fake.script(|_| Act::Refuse(ErrorCode::TooLarge));
    let ticket = send(&producer, 1, 100).await;
    let error = ended(&producer, vec![ticket]).await.remove(0).unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TooLarge));
}

#[tokio::test]
async fn a_record_without_a_key_is_refused_where_the_topic_is_compacted() {
    let fake = Fake::start(1, 1).await;
    fake.world().cleanup = Cleanup::Compact;
    let producer = patient(&fake, 64 << 10).await;
    let keyed = send(&producer, 0, 10).await;
    let error = producer.send(Record::new().value("v")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    ended(&producer, vec![keyed]).await[0].as_ref().unwrap();
    // The topic is no longer compacted, and the producer learns of it.
    fake.world().cleanup = Cleanup::Delete;
    let ticket = producer.send(Record::new().value("7")).await.unwrap();
    ended(&producer, vec![ticket]).await[0].as_ref().unwrap();
}

#[tokio::test]
async fn the_records_beside_one_that_is_refused_are_sent_again_in_order() {
    let fake = Fake::start(1, 1).await;
    let producer = patient(&fake, 2_000).await;
    let mut tickets = Vec::new();
    for number in 0..100 {
        tickets.push(match number % 40 {
            33 => {
                let keyless = Record::new().value("99999").partition(0);
                producer.send(keyless).await.unwrap()
            }
            _ => {
                let record = Record::new().key("k").value(format!("{number:0>100}"));
                producer.send(record.partition(0)).await.unwrap()
            }
        });
        if number == 0 {
            // The producer has not learned of it yet.
            fake.world().cleanup = Cleanup::Compact;
        }
    }
    let mut written = Vec::new();
    for (number, ended) in ended(&producer, tickets).await.into_iter().enumerate() {
        match ended {
            Ok(receipt) => {
                assert_eq!(receipt.offset, written.len() as u64);
                written.push(number);
            }
            Err(error) => {
                assert_eq!(number % 40, 33, "{error}");
                assert_eq!(error.code(), Some(ErrorCode::InvalidRequest));
            }
        }
    }
    assert_eq!(written.len(), 98);
    assert_eq!(logged(&fake), written);
}
