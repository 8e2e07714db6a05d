//! Filters: readers pass records that do not match, and detect a cluster without filters.

use futures_util::StreamExt;
use ropewalk_client::{Client, Compression, ErrorCode, Offset};
use ropewalk_proto::batch::BatchBuilder;

use crate::fake::{Fake, GROUP, TOPIC, offer, soon};

/// Ten batches of ten records; the fake's filter `n` selects every n-th of them.
async fn with_batches() -> (Fake, Client) {
    let fake = Fake::start(2, 1).await;
    for _ in 0..10 {
        let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
        for _ in 0..10 {
            assert!(builder.push(None, Some(b"value"), &[], 7).unwrap());
        }
        fake.world().logs[0].push(builder.build());
    }
    let client = fake.client().await;
    (fake, client)
}

#[tokio::test]
async fn a_reader_passes_what_its_filter_leaves_out_also_where_nothing_follows() {
    let (_fake, client) = with_batches().await;
    for prefetch_bytes in [200, 1 << 20] {
        let builder = client.reader(TOPIC, 0).filter("4");
        let builder = builder.prefetch_bytes(prefetch_bytes);
        let mut reader = builder.build().await.unwrap();
        for offset in (0..10).chain(40..50).chain(80..90) {
            let record = soon(reader.next()).await.unwrap().unwrap();
            assert_eq!(record.offset, offset);
        }
        assert!(soon(reader.next_before(100)).await.is_none());
        assert_eq!((reader.position(), reader.high_watermark()), (100, 100));
    }
    let builder = client.reader(TOPIC, 0).filter("1000").from(Offset::At(15));
    let mut reader = builder.build().await.unwrap();
    assert!(soon(reader.next_before(60)).await.is_none(), "none matches");
    assert!(reader.position() >= 60);
}

#[tokio::test]
async fn a_group_commits_past_what_its_filter_leaves_out() {
    let (fake, client) = with_batches().await;
    fake.assign(vec![offer(0, 5, false)]);
    let builder = client.subscribe(GROUP).topics([TOPIC]).filter("4");
    let mut subscription = builder.build().await.unwrap();
    for offset in (0..10).chain(40..50).chain(80..90) {
        let delivery = soon(subscription.next()).await.unwrap().unwrap();
        assert_eq!(delivery.offset, offset);
        delivery.ack();
    }
    let to_the_end = fake.until("the end", |group| group.committed.get(&0) == Some(&100));
    tokio::select! {
        more = subscription.next() => panic!("{more:?}"),
        () = to_the_end => {}
    }
    subscription.close().await.unwrap();
}

#[tokio::test]
async fn an_invalid_filter_is_refused_before_anything_is_read_or_joined() {
    let (fake, client) = with_batches().await;
    let reader = client.reader(TOPIC, 0).filter("x").build().await;
    let error = reader.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::InvalidFilter));
    assert!(error.to_string().contains("column 2"), "{error}");
    let builder = client.subscribe(GROUP).topics([TOPIC]).filter("x");
    let error = builder.build().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::InvalidFilter));
    assert!(fake.world().groups.joins().is_empty());
}

#[tokio::test]
async fn a_node_that_knows_no_filters_does_not_pass_for_one_that_finds_everything() {
    let (fake, client) = with_batches().await;
    let builder = client.reader(TOPIC, 0).filter("1");
    let mut reader = builder.clone().prefetch_bytes(100).build().await.unwrap();
    assert_eq!(soon(reader.next()).await.unwrap().unwrap().offset, 0);
    fake.world().knows_filters = false;
    let error = loop {
        match soon(reader.next()).await.unwrap() {
            Ok(record) => assert!(record.offset < 100),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Some(ErrorCode::UnsupportedVersion));
    assert!(error.to_string().contains("filter"), "{error}");
    assert!(!error.is_retryable());

    let error = builder.build().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnsupportedVersion));
}
