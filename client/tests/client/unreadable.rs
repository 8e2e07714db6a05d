//! Batches that no reader can read, although their CRC matches. The reader fails, or skips and reports them,
//! by its policy. Damage is never skipped.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use parking_lot::Mutex;
use ropewalk_client::{
    Client, Compression, ErrorCode, ErrorKind, OnUnreadable, Reader, Rebalance, Skipped,
};
use ropewalk_proto::batch::{BatchBuilder, BatchView, HEADER_BYTES};

use crate::fake::{Fake, GROUP, TOPIC, offer, soon};

fn batch(codec: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(codec, 1 << 20);
    for _ in 0..10 {
        assert!(builder.push(None, Some(&[7; 100]), &[], 7).unwrap());
    }
    builder.build()
}

/// A batch with a matching CRC, whose bytes from `at` on have no meaning.
fn garbage(codec: Compression, at: usize) -> Bytes {
    let mut bytes = BytesMut::from(&batch(codec)[..]);
    bytes[at..].fill(0xff);
    let view = BatchView::trusted(bytes.freeze()).unwrap();
    view.with_producer(-1, -1, -1)
}

/// Three batches of ten records; those of the second from `good` on can't be read.
async fn with_garbage(codec: Compression, good: u64) -> (Fake, Client) {
    let fake = Fake::start(1, 1).await;
    let record = (batch(Compression::None).len() - HEADER_BYTES) / 10;
    let at = HEADER_BYTES + record * good as usize;
    for bytes in [
        batch(Compression::Lz4),
        garbage(codec, at),
        batch(Compression::None),
    ] {
        fake.world().logs[0].push(bytes);
    }
    let client = fake.client().await;
    (fake, client)
}

async fn expect(reader: &mut Reader, offsets: impl IntoIterator<Item = u64>) {
    for offset in offsets {
        let record = soon(reader.next()).await.unwrap().unwrap();
        assert_eq!(record.offset, offset);
    }
}

#[tokio::test]
async fn a_reader_ends_at_a_batch_nobody_can_read_unless_it_is_told_to_skip_it() {
    for (codec, good) in [(Compression::Zstd, 0), (Compression::None, 4)] {
        let (_fake, client) = with_garbage(codec, good).await;
        let mut reader = client.reader(TOPIC, 0).build().await.unwrap();
        expect(&mut reader, 0..10 + good).await;
        let error = soon(reader.next()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(soon(reader.next()).await.is_none());

        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        let builder = client.reader(TOPIC, 0).on_unreadable(OnUnreadable::Skip);
        let builder = builder.on_skipped(move |skipped: &Skipped| {
            heard.lock().push((skipped.offset, skipped.next_offset));
        });
        let mut reader = builder.build().await.unwrap();
        expect(&mut reader, (0..10 + good).chain(20..30)).await;
        assert_eq!(*told.lock(), [(10 + good, 20)]);
        assert_eq!((reader.skipped_batches(), reader.position()), (1, 30));
    }
}

#[tokio::test]
async fn a_damaged_batch_is_never_skipped() {
    let fake = Fake::start(1, 1).await;
    let mut damaged = BytesMut::from(&batch(Compression::None)[..]);
    damaged[HEADER_BYTES + 20] ^= 1;
    fake.world().logs[0].push(damaged.freeze());
    fake.world().logs[0].push(batch(Compression::None));
    let client = fake.client().await;
    let builder = client.reader(TOPIC, 0).on_unreadable(OnUnreadable::Skip);
    let mut reader = builder.build().await.unwrap();
    let error = soon(reader.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!((reader.skipped_batches(), reader.position()), (0, 0));
}

#[tokio::test]
async fn a_group_goes_on_behind_a_batch_nobody_can_read_and_is_told_of_it() {
    let (fake, client) = with_garbage(Compression::Zstd, 0).await;
    // The last one is unreadable too: no record follows it.
    fake.world().logs[0].push(garbage(Compression::Gzip, HEADER_BYTES));
    fake.assign(vec![offer(0, 5, false)]);
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let builder = client.subscribe(GROUP).topics([TOPIC]);
    let builder = builder.on_rebalance(move |rebalance| {
        if let Rebalance::Skipped(skipped) = rebalance {
            heard.lock().push((skipped.offset, skipped.next_offset));
        }
    });
    let builder = builder.on_unreadable(OnUnreadable::Skip);
    let mut subscription = builder.build().await.unwrap();
    for offset in (0..10).chain(20..30) {
        let delivery = soon(subscription.next()).await.unwrap().unwrap();
        assert_eq!(delivery.offset, offset);
        delivery.ack();
    }
    let to_the_end = fake.until("the end", |group| group.committed.get(&0) == Some(&40));
    tokio::select! {
        more = subscription.next() => panic!("{more:?}"),
        () = to_the_end => {}
    }
    assert_eq!(*told.lock(), [(10, 20), (30, 40)]);
    assert_eq!(subscription.skipped_batches(), 2);
    subscription.close().await.unwrap();
}

#[tokio::test]
async fn what_a_node_can_not_filter_is_skipped_as_a_batch_or_as_a_record() {
    for (code, bad, skips_to) in [
        (ErrorCode::CorruptBatch, 10..20, 20),
        (ErrorCode::FilterTooCostly, 10..11, 11),
    ] {
        let fake = Fake::start(1, 1).await;
        for _ in 0..3 {
            fake.world().logs[0].push(batch(Compression::None));
        }
        fake.world().fetch_script = Box::new(move |request| {
            let refused = !request.filter.is_empty() && bad.contains(&request.offset);
            refused.then_some(code)
        });
        let client = fake.client().await;
        let builder = client.reader(TOPIC, 0).filter("1").prefetch_bytes(1);
        let mut reader = builder.clone().build().await.unwrap();
        expect(&mut reader, 0..10).await;
        let error = soon(reader.next()).await.unwrap().unwrap_err();
        assert_eq!(error.code(), Some(code));

        let builder = builder.on_unreadable(OnUnreadable::Skip);
        let mut reader = builder.build().await.unwrap();
        expect(&mut reader, (0..10).chain(skips_to..30)).await;
        assert_eq!((reader.skipped_batches(), reader.position()), (1, 30));
    }
}
