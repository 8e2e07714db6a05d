//! Keys, partitions, and changes of their mapping.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use ropewalk_client::{ErrorCode, ErrorKind, Record};
use ropewalk_proto::partitioner::Partitioner;
use ropewalk_proto::v1;

use crate::fake::{Act, Fake, Log, TOPIC, soon};

#[tokio::test]
async fn keys_go_where_the_topics_own_mapping_says() {
    for murmur2 in [false, true] {
        let fake = Fake::start(1, 5).await;
        if murmur2 {
            fake.world().partitioner = v1::Partitioner::Murmur2;
        }
        let mapping = match murmur2 {
            true => Partitioner::murmur2(5),
            false => Partitioner::ring(5),
        };
        let producer = fake.client().await.producer(TOPIC).build().await.unwrap();
        for number in 0..50 {
            let key = format!("key-{number}");
            let ticket = producer
                .send(Record::new().key(key.clone()).value("v"))
                .await
                .unwrap();
            let receipt = soon(ticket).await.unwrap();
            assert_eq!(receipt.partition, mapping.partition(key.as_bytes()));
        }
    }
}

#[tokio::test]
async fn a_partition_named_by_the_record_wins_over_its_key_and_must_exist() {
    let fake = Fake::start(1, 3).await;
    let producer = fake.client().await.producer(TOPIC).build().await.unwrap();
    for partition in 0..3 {
        let record = Record::new().key("same").value("v").partition(partition);
        let ticket = producer.send(record).await.unwrap();
        assert_eq!(soon(ticket).await.unwrap().partition, partition);
    }
    let error = producer.send(Record::new().partition(3)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Cluster(_)), "{error}");
}

#[tokio::test]
async fn a_partitioner_of_the_callers_chooses_what_the_record_does_not_name() {
    let fake = Fake::start(1, 4).await;
    let client = fake.client().await;
    let builder = client.producer(TOPIC).partitioner(|key, partitions| {
        let number: u32 = std::str::from_utf8(key?).ok()?.parse().ok()?;
        Some(if number == 99 {
            number
        } else {
            number % partitions
        })
    });
    let producer = builder.build().await.unwrap();
    let by_topic = Partitioner::ring(4).partition(b"plane");
    let cases = [
        (Record::new().key("5"), 1),
        (Record::new().key("5").partition(3), 3),
        (Record::new().key("plane"), by_topic),
    ];
    for (record, partition) in cases {
        let ticket = producer.send(record.value("v")).await.unwrap();
        assert_eq!(soon(ticket).await.unwrap().partition, partition);
    }
    let error = producer.send(Record::new().key("99")).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownPartition));
}

#[tokio::test]
async fn records_routed_by_an_old_ring_are_routed_again_in_the_order_of_each_key() {
    let fake = Fake::start(1, 3).await;
    let client = fake.client().await;
    let builder = client
        .producer(TOPIC)
        .linger(Duration::ZERO)
        .batch_bytes(256);
    let producer = builder.build().await.unwrap();
    let mut tickets = Vec::new();
    for number in 0..600_usize {
        if number == 200 {
            let mut world = fake.world();
            world.ring_version = 2;
            world.logs.extend((0..4).map(|_| Log {
                leader: 1,
                epoch: 1,
                ..Log::default()
            }));
        }
        let record = Record::new()
            .key(format!("key-{}", number % 20))
            .value(number.to_string());
        tickets.push(producer.send(record).await.unwrap());
        if number % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let receipts = soon(join_all(tickets)).await;

    // Each receipt is correct, and a key's records are in order within a partition.
    let logs: Vec<Vec<String>> = (0..7).map(|partition| fake.values(partition)).collect();
    assert_eq!(logs.iter().map(Vec::len).sum::<usize>(), 600);
    let mut last: BTreeMap<(usize, u32), u64> = BTreeMap::new();
    let mut moved = 0;
    let ring = Partitioner::ring(7);
    for (number, receipt) in receipts.into_iter().enumerate() {
        let receipt = receipt.unwrap();
        let log = &logs[receipt.partition as usize];
        assert_eq!(log[receipt.offset as usize], number.to_string());
        let before = last.insert((number % 20, receipt.partition), receipt.offset);
        assert!(before.is_none_or(|before| before < receipt.offset));
        let key = format!("key-{}", number % 20);
        if number >= 200 {
            assert_eq!(receipt.partition, ring.partition(key.as_bytes()));
            moved += usize::from(receipt.partition >= 3);
        }
    }
    assert!(moved > 0, "some keys belong to new partitions");
}

#[tokio::test]
async fn a_node_that_is_behind_with_the_ring_is_asked_again() {
    let fake = Fake::start(1, 3).await;
    fake.world().ring_version = 5;
    let producer = fake.client().await.producer(TOPIC).build().await.unwrap();
    fake.script(|seen| match seen.number {
        0 | 1 => Act::Refuse(ropewalk_client::ErrorCode::StaleRing),
        _ => Act::Obey,
    });
    let ticket = producer
        .send(Record::new().key("k").value("v"))
        .await
        .unwrap();
    soon(ticket).await.unwrap();
    assert_eq!(fake.seen().len(), 3);
}

/// A key of each partition that keeps it when the topic grows from three partitions to four.
fn keys() -> [String; 3] {
    let (old, new) = (Partitioner::ring(3), Partitioner::ring(4));
    [0, 1, 2].map(|partition| {
        let mut keys = (0..).map(|number| format!("key-{number}"));
        let stays = |key: &String| {
            let both = [&old, &new].map(|ring| ring.partition(key.as_bytes()));
            both == [partition; 2]
        };
        keys.find(stays).unwrap()
    })
}

#[tokio::test]
async fn a_partition_that_learns_of_the_ring_behind_the_order_to_move_goes_on() {
    let fake = Fake::start(1, 3).await;
    let client = fake.client().await;
    let producer = client.producer(TOPIC).linger(Duration::ZERO);
    let producer = producer.build().await.unwrap();
    let other = fake.client().await.producer(TOPIC).build().await.unwrap();
    // The partitions refuse one after the other: 0 at once, 1 and 2 at a request of another producer each.
    fake.script(|seen| match seen.number {
        0..3 => Act::RefuseLate(ErrorCode::StaleRing, 3 + seen.partition as usize),
        _ => Act::Obey,
    });
    let mut tickets = Vec::new();
    for key in keys() {
        let record = Record::new().key(key).value("v");
        tickets.push(producer.send(record).await.unwrap());
        if tickets.len() == 2 {
            let mut world = fake.world();
            world.ring_version = 2;
            world.logs.push(Log {
                leader: 1,
                epoch: 1,
                ..Log::default()
            });
        }
    }
    for _ in 0..2 {
        // Partition 0 has found the new ring, and all are asked for what they hold; partition 1 asks for the ring
        // although that order waits for it.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let record = Record::new().value("other").partition(0);
        soon(other.send(record).await.unwrap()).await.unwrap();
    }
    for receipt in soon(join_all(tickets)).await {
        receipt.unwrap();
    }
}
