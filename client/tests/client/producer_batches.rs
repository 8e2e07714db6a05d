//! Batching of records, and its bounds.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use ropewalk_client::{Compression, ErrorKind, Record};
use ropewalk_proto::batch::BatchView;
use tokio::time::Instant;

use crate::fake::{Act, Fake, TOPIC, soon};

#[tokio::test]
async fn records_that_come_together_share_a_batch_of_one_or_of_ten_thousand() {
    let fake = Fake::start(1, 1).await;
    let client = fake.client().await;
    for count in [1, 10_000_u64] {
        let builder = client.producer(TOPIC).linger(Duration::from_secs(10));
        let producer = builder.batch_bytes(1 << 20).build().await.unwrap();
        let mut tickets = Vec::new();
        for number in 0..count {
            let record = Record::new().key("k").value(number.to_string());
            tickets.push(producer.send(record).await.unwrap());
        }
        soon(producer.flush()).await.unwrap();
        let receipts = join_all(tickets).await;
        let base = receipts[0].as_ref().unwrap().offset;
        for (number, receipt) in (0..).zip(receipts) {
            assert_eq!(receipt.unwrap().offset, base + number);
        }
        assert_eq!(fake.seen().last().unwrap().count, count as i32);
    }
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn a_batch_is_sent_when_it_is_full_before_its_linger_is_over() {
    let fake = Fake::start(1, 1).await;
    let client = fake.client().await;
    let builder = client.producer(TOPIC).linger(Duration::from_secs(60));
    let producer = builder.batch_bytes(1_000).build().await.unwrap();
    let record = Record::new().key("k").value(vec![b'x'; 400]);
    let first = producer.send(record.clone()).await.unwrap();
    let second = producer.send(record.clone()).await.unwrap();
    let third = producer.send(record).await.unwrap();
    soon(first).await.unwrap();
    soon(second).await.unwrap();
    assert_eq!(fake.seen().len(), 1);
    assert!(third.now_or_never().is_none(), "the rest waits for more");
}

#[tokio::test]
async fn a_batch_that_does_not_fill_is_sent_when_its_linger_is_over() {
    let fake = Fake::start(1, 1).await;
    let client = fake.client().await;
    let linger = Duration::from_millis(60);
    let producer = client.producer(TOPIC).linger(linger).build().await.unwrap();
    let begun = Instant::now();
    let tickets = [
        producer
            .send(Record::new().key("k").value("1"))
            .await
            .unwrap(),
        producer
            .send(Record::new().key("k").value("2"))
            .await
            .unwrap(),
    ];
    soon(join_all(tickets)).await;
    assert!(begun.elapsed() >= linger);
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn what_is_empty_and_what_is_absent_stay_apart_in_every_compression() {
    for compression in Compression::ALL {
        let fake = Fake::start(1, 1).await;
        let client = fake.client().await;
        let producer = client
            .producer(TOPIC)
            .compression(compression)
            .build()
            .await
            .unwrap();
        let records = [
            Record::new(),
            Record::new().value(""),
            Record::new()
                .key("")
                .value("v")
                .header("h", "")
                .header("h", "2"),
            Record::new().key("tombstone").timestamp_ms(5),
            Record::new().key("k").value("long ".repeat(100)),
        ];
        for record in records {
            let _ticket = producer.send(record).await.unwrap();
        }
        soon(producer.close()).await.unwrap();
        let world = fake.world();
        let batches = world.logs[0].batches.iter();
        let records: Vec<_> = batches
            .flat_map(|(_, batch)| {
                BatchView::trusted(batch.clone())
                    .unwrap()
                    .records(1 << 20)
                    .unwrap()
            })
            .collect();
        let fields: Vec<_> = records
            .iter()
            .map(|r| (r.key.clone(), r.value.clone()))
            .collect();
        let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        assert_eq!(fields[0], (None, None));
        assert_eq!(fields[1], (None, bytes("")));
        assert_eq!(fields[2], (bytes(""), bytes("v")));
        assert_eq!(fields[3], (bytes("tombstone"), None));
        assert_eq!(records[2].headers.len(), 2);
        assert_eq!(records[3].timestamp_ms, 5);
        assert_eq!(records[0].timestamp_ms, 1_700_000_000_000);
    }
}

#[tokio::test]
async fn keyless_records_fill_one_partition_after_the_other() {
    let fake = Fake::start(1, 3).await;
    let client = fake.client().await;
    let builder = client.producer(TOPIC).linger(Duration::from_secs(60));
    let producer = builder.batch_bytes(1_000).build().await.unwrap();
    for _ in 0..60 {
        let _ticket = producer
            .send(Record::new().value(vec![b'x'; 80]))
            .await
            .unwrap();
    }
    soon(producer.flush()).await.unwrap();
    let seen = fake.seen();
    assert_eq!(seen.iter().map(|seen| seen.count).sum::<i32>(), 60);
    assert!(seen.len() <= 7, "full batches: {seen:?}");
    for partition in 0..3 {
        assert!(
            fake.values(partition).len() >= 10,
            "partition {partition} has its share"
        );
    }
}

#[tokio::test]
async fn a_sender_waits_while_the_memory_is_full_and_goes_on_when_it_is_not() {
    let fake = Fake::start(1, 1).await;
    fake.script(|_| Act::Ignore);
    let client = fake
        .builder()
        .request_timeout(Duration::from_millis(400))
        .connect()
        .await
        .unwrap();
    let builder = client.producer(TOPIC).linger(Duration::ZERO);
    let producer = builder.buffer_bytes(900).build().await.unwrap();
    let record = || Record::new().key("k").value(vec![b'x'; 300]);
    let mut tickets = Vec::new();
    for _ in 0..2 {
        tickets.push(producer.send(record()).await.unwrap());
    }
    let mut third = Box::pin(producer.send(record()));
    let early = tokio::time::timeout(Duration::from_millis(50), &mut third).await;
    assert!(early.is_err(), "there is no room for a third record");
    fake.script(|_| Act::Obey);
    tickets.push(soon(third).await.unwrap());
    for ticket in tickets {
        soon(ticket).await.unwrap();
    }
    assert_eq!(fake.values(0).len(), 3);
}

#[tokio::test]
async fn a_sender_that_finds_no_room_in_time_is_told() {
    let fake = Fake::start(1, 1).await;
    fake.script(|_| Act::Ignore);
    let client = fake.client().await;
    let builder = client.producer(TOPIC).buffer_bytes(1_000);
    let producer = builder
        .delivery_timeout(Duration::from_millis(150))
        .build()
        .await
        .unwrap();
    let record = Record::new().key("k").value(vec![b'x'; 800]);
    let first = producer.send(record.clone()).await.unwrap();
    // The first record's deadline is a moment before the second's; the first holds the memory.
    let error = match producer.send(record).await {
        Err(error) => error,
        Ok(ticket) => soon(ticket).await.unwrap_err(),
    };
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(soon(first).await.unwrap_err().outcome_unknown());
}

#[tokio::test]
async fn a_record_no_batch_can_hold_is_refused_and_a_large_one_travels_alone() {
    let fake = Fake::start(1, 1).await;
    fake.world().max_batch_bytes = 100_000;
    let client = fake.client().await;
    let producer = client
        .producer(TOPIC)
        .batch_bytes(1_000)
        .build()
        .await
        .unwrap();
    let error = producer
        .send(Record::new().value(vec![0; 100_000]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let large = producer
        .send(Record::new().value(vec![b'x'; 90_000]))
        .await
        .unwrap();
    assert_eq!(soon(large).await.unwrap().offset, 0);
}

#[tokio::test]
async fn closing_sends_what_has_gathered_and_takes_no_more() {
    let fake = Fake::start(1, 4).await;
    let client = fake.client().await;
    let producer = client
        .producer(TOPIC)
        .linger(Duration::from_secs(60))
        .build()
        .await
        .unwrap();
    let mut tickets = Vec::new();
    for number in 0..100 {
        let record = Record::new().key(format!("key-{number}")).value("v");
        tickets.push(producer.send(record).await.unwrap());
    }
    soon(producer.close()).await.unwrap();
    for ticket in tickets {
        ticket
            .now_or_never()
            .expect("closing waits for it")
            .unwrap();
    }
    assert_eq!(
        (0..4)
            .map(|partition| fake.values(partition).len())
            .sum::<usize>(),
        100
    );
    let error = producer
        .send(Record::new().value("late"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_dropped_producer_leaves_no_ticket_waiting() {
    let fake = Fake::start(1, 1).await;
    fake.script(|_| Act::Ignore);
    let client = fake.client().await;
    let producer = client
        .producer(TOPIC)
        .linger(Duration::ZERO)
        .build()
        .await
        .unwrap();
    let ticket = producer.send(Record::new().value("v")).await.unwrap();
    while fake.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(producer);
    let error = soon(ticket).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(error.outcome_unknown(), "it was sent");
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused() {
    let fake = Fake::start(1, 1).await;
    let client = fake.client().await;
    for builder in [
        client.producer(TOPIC).in_flight(0),
        client.producer(TOPIC).in_flight(17),
        client.producer(TOPIC).batch_bytes(10),
        client.producer(TOPIC).buffer_bytes(0),
    ] {
        let error = builder.build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}
