//! A topic that is deleted, and created again under its name, is another topic.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use ropewalk_client::{Client, ErrorCode, Offset, Producer, Record};
use ropewalk_proto::batch::{BatchBuilder, Compression};
use ropewalk_proto::partitioner::Partitioner;

use crate::fake::{Act, Fake, TOPIC, soon};

fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    for value in values {
        assert!(builder.push(None, Some(value.as_bytes()), &[], 7).unwrap());
    }
    builder.build()
}

async fn send(producer: &Producer, record: Record) -> ropewalk_client::Result<u32> {
    let ticket = producer.send(record).await?;
    soon(ticket).await.map(|receipt| receipt.partition)
}

fn keyed(number: usize) -> Record {
    Record::new().key(format!("key-{number}")).value("v")
}

/// Sends one record for each of forty keys. Returns the numbers of those that failed.
async fn send_all(producer: &Producer) -> Vec<usize> {
    let sent = join_all((0..40).map(|number| send(producer, keyed(number)))).await;
    let failed = (0..).zip(&sent).filter(|(_, sent)| sent.is_err());
    failed.map(|(number, _)| number).collect()
}

#[tokio::test]
async fn a_producer_goes_on_in_the_new_topic_by_its_own_mapping() {
    for (before, after) in [(12, 3), (3, 12), (4, 4)] {
        let fake = Fake::start(1, before).await;
        let producer = fake.client().await.producer(TOPIC).build().await.unwrap();
        assert!(send_all(&producer).await.is_empty());
        fake.recreate(after);

        // Records in flight at the time of the discovery fail at once. After that, all keys are routed
        // correctly.
        let error = send(&producer, keyed(0)).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::TopicRecreated), "{error}");
        assert!(!error.outcome_unknown() && !error.is_retryable());
        assert!(send_all(&producer).await.is_empty());
        let ring = Partitioner::ring(after);
        for number in 0..40 {
            let partition = send(&producer, keyed(number)).await.unwrap();
            let key = format!("key-{number}");
            assert_eq!(partition, ring.partition(key.as_bytes()));
        }
        let producers: BTreeSet<i64> = fake.seen().iter().map(|seen| seen.producer).collect();
        assert_eq!(producers.len(), 2, "the new topic gets a new producer id");
        soon(producer.close()).await.unwrap();
    }
}

#[tokio::test]
async fn a_producer_that_begins_later_on_the_same_client_begins_in_the_new_topic() {
    let fake = Fake::start(1, 3).await;
    let client = fake.client().await;
    let before = client.producer(TOPIC).build().await.unwrap();
    assert!(send_all(&before).await.is_empty());
    fake.recreate(12);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let after = client.producer(TOPIC).build().await.unwrap();
    assert!(send_all(&after).await.is_empty());
}

#[tokio::test]
async fn what_was_routed_to_the_old_topic_is_not_in_the_new_one() {
    let fake = Fake::start(1, 6).await;
    let client = fake.client().await;
    let builder = client.producer(TOPIC).linger(Duration::from_secs(1));
    let producer = builder.build().await.unwrap();
    // None of these is sent yet, and one names a partition that the new topic does not have.
    let mut tickets = Vec::new();
    for number in 0..40 {
        tickets.push(producer.send(keyed(number)).await.unwrap());
    }
    let named = Record::new().value("v").partition(5);
    tickets.push(producer.send(named).await.unwrap());
    fake.recreate(2);
    for ended in soon(join_all(tickets)).await {
        let error = ended.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::TopicRecreated), "{error}");
        assert!(!error.outcome_unknown(), "{error}");
    }
    assert!(fake.values(0).is_empty() && fake.values(1).is_empty());
    let named = Record::new().value("v").partition(5);
    let error = send(&producer, named).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownPartition));
    assert_eq!(send(&producer, Record::new().partition(1)).await, Ok(1));
}

#[tokio::test]
async fn a_record_whose_answer_was_lost_with_the_old_topic_has_an_unknown_outcome() {
    let fake = Fake::start(1, 1).await;
    let producer = fake.client().await.producer(TOPIC).build().await.unwrap();
    fake.script(|seen| match seen.number {
        0 => Act::ObeyInSilence,
        _ => Act::Obey,
    });
    let lost = producer.send(keyed(0)).await.unwrap();
    while fake.seen().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let gone = fake.recreate(1);
    // The batch is sent again once the node counts as silent.
    let error = soon(lost).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TopicRecreated), "{error}");
    assert!(error.outcome_unknown(), "it was written to the old topic");
    assert_eq!(gone[0].values(), ["v"]);
    assert!(fake.values(0).is_empty());
    assert_eq!(send(&producer, keyed(1)).await, Ok(0));
}

#[tokio::test]
async fn a_flush_waits_for_what_fails_with_the_old_topic() {
    let fake = Fake::start(1, 3).await;
    let client = fake.client().await;
    let builder = client.producer(TOPIC).linger(Duration::from_secs(60));
    let producer = builder.build().await.unwrap();
    let ticket = producer.send(keyed(0)).await.unwrap();
    fake.recreate(3);
    let error = soon(producer.flush()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TopicRecreated));
    assert!(soon(ticket).await.is_err());
    let again = producer.send(keyed(0)).await.unwrap();
    soon(producer.flush()).await.unwrap();
    soon(again).await.unwrap();
}

async fn ends(client: &Client, fake: &Fake, from: u64, new: &[&str]) {
    fake.world().logs[0].push(batch(&["a", "b", "c"]));
    let reader = client.reader(TOPIC, 0).from(Offset::At(from));
    let mut reader = reader.build().await.unwrap();
    let before = reader.topic_id();
    while reader.position() < 3 {
        soon(reader.next()).await.unwrap().unwrap();
    }
    fake.recreate(1);
    fake.world().logs[0].push(batch(new));
    let error = soon(reader.next()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TopicRecreated), "{error}");
    assert!(error.to_string().contains("offset 3"), "{error}");
    assert!(soon(reader.next()).await.is_none());

    // A position from before is invalid, regardless of the start of the new topic's reader.
    let builder = client.reader(TOPIC, 0).from(Offset::At(3));
    let error = builder.topic_id(before).build().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TopicRecreated), "{error}");
    let mut reader = client.reader(TOPIC, 0).build().await.unwrap();
    assert_eq!(reader.topic_id(), before + 1);
    let first = soon(reader.next()).await.unwrap().unwrap();
    assert_eq!(
        (first.offset, first.value),
        (0, Some(Bytes::from(new[0].to_owned())))
    );
}

#[tokio::test]
async fn a_reader_ends_with_its_topic_whether_the_new_one_is_longer_or_shorter() {
    let fake = Fake::start(1, 1).await;
    let client = fake.client().await;
    ends(&client, &fake, 0, &["d", "e", "f", "g", "h"]).await;
    fake.recreate(1);
    ends(&client, &fake, 1, &["i"]).await;
}

#[tokio::test]
async fn offsets_by_name_are_those_of_the_topic_that_has_it_now() {
    let fake = Fake::start(1, 1).await;
    let client = fake.client().await;
    fake.world().logs[0].push(batch(&["a", "b", "c"]));
    assert_eq!(client.offset(TOPIC, 0, Offset::End).await, Ok(3));
    fake.recreate(1);
    fake.world().logs[0].push(batch(&["d"]));
    assert_eq!(client.offset(TOPIC, 0, Offset::End).await, Ok(1));
    fake.recreate(1);
    // This also holds for a reader that needs only an offset.
    let builder = client.reader(TOPIC, 0).from(Offset::At(0));
    assert_eq!(builder.build().await.unwrap().topic_id(), 3);
}
