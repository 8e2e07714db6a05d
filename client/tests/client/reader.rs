//! Reading: from any position, across leader changes, past trimmed records.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use ropewalk_client::{Compression, ErrorCode, ErrorKind, Offset, OnTrimmed, Reader};
use ropewalk_proto::batch::BatchBuilder;

use crate::fake::{Fake, TOPIC, soon};

fn batch(values: std::ops::Range<u64>, compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(compression, 1 << 22);
    for value in values {
        let text = value.to_string();
        assert!(builder.push(None, Some(text.as_bytes()), &[], 7).unwrap());
    }
    builder.build()
}

/// Batches of ten records, whose values are their offsets.
fn fill(fake: &Fake, batches: std::ops::Range<u64>) {
    for number in batches {
        let codec = Compression::from_number((number % 5) as u8).unwrap();
        let bytes = batch(number * 10..number * 10 + 10, codec);
        fake.world().logs[0].push(bytes);
    }
}

async fn expect(reader: &mut Reader, offsets: std::ops::Range<u64>) {
    for offset in offsets {
        let record = soon(reader.next()).await.unwrap().unwrap();
        assert_eq!(record.offset, offset);
        assert_eq!(record.value.unwrap(), offset.to_string());
    }
}

#[tokio::test]
async fn a_reader_begins_where_it_was_told_even_within_a_batch() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0..10);
    let client = fake.client().await;
    for (from, first) in [
        (Offset::Beginning, 0),
        (Offset::At(37), 37),
        (Offset::At(90), 90),
    ] {
        let mut reader = client.reader(TOPIC, 0).from(from).build().await.unwrap();
        expect(&mut reader, first..100).await;
        assert_eq!((reader.position(), reader.high_watermark()), (100, 100));
    }
    assert_eq!(client.offset(TOPIC, 0, Offset::End).await.unwrap(), 100);
}

#[tokio::test]
async fn a_reader_at_the_end_waits_for_what_comes() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0..1);
    let client = fake.client().await;
    let mut reader = client
        .reader(TOPIC, 0)
        .from(Offset::End)
        .build()
        .await
        .unwrap();
    let producer = client.producer(TOPIC).build().await.unwrap();
    let ticket = producer
        .send(ropewalk_client::Record::new().value("new"))
        .await
        .unwrap();
    let record = soon(reader.next()).await.unwrap().unwrap();
    assert_eq!(
        (record.offset, record.value.unwrap().as_ref()),
        (10, &b"new"[..])
    );
    assert_eq!(soon(ticket).await.unwrap().offset, 10);
}

#[tokio::test]
async fn a_reader_follows_the_leader_and_reads_everything_once() {
    for hints in [true, false] {
        let fake = Fake::start(3, 1).await;
        fake.world().hints = hints;
        fill(&fake, 0..20);
        let client = fake.client().await;
        let builder = client.reader(TOPIC, 0).prefetch_bytes(300);
        let mut reader = builder.build().await.unwrap();
        for (offsets, leader) in [(0..60, 2), (60..120, 3), (120..200, 1)] {
            expect(&mut reader, offsets).await;
            fake.move_leader(0, leader);
        }
        // The reader also learns of the move while it waits at the end.
        fill(&fake, 20..21);
        fake.move_leader(0, 2);
        expect(&mut reader, 200..210).await;
    }
}

#[tokio::test]
async fn a_trimmed_offset_is_an_error_or_skipped_as_the_reader_was_told() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0..10);
    {
        let mut world = fake.world();
        world.logs[0].start = 50;
        world.logs[0].batches.drain(..5);
    }
    let client = fake.client().await;
    let mut reader = client
        .reader(TOPIC, 0)
        .from(Offset::At(12))
        .build()
        .await
        .unwrap();
    let error = soon(reader.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Trimmed, "{error}");
    assert!(error.to_string().contains("50"), "{error}");
    assert!(
        soon(reader.next()).await.is_none(),
        "after an error it ends"
    );

    let builder = client.reader(TOPIC, 0).from(Offset::At(12));
    let mut reader = builder
        .on_trimmed(OnTrimmed::SkipToBeginning)
        .build()
        .await
        .unwrap();
    expect(&mut reader, 50..100).await;
}

#[tokio::test]
async fn an_offset_past_the_end_is_told_apart_from_a_trimmed_one() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0..1);
    let client = fake.client().await;
    let builder = client.reader(TOPIC, 0).from(Offset::At(11));
    let mut reader = builder
        .on_trimmed(OnTrimmed::SkipToBeginning)
        .build()
        .await
        .unwrap();
    let error = soon(reader.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
}

#[tokio::test]
async fn what_fails_for_a_while_is_tried_again_and_what_fails_for_long_is_told() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0..1);
    let mut failures = 3;
    fake.world().fetch_script = Box::new(move |_| {
        failures -= 1;
        (failures >= 0).then_some(ErrorCode::NoLeader)
    });
    let client = fake.client().await;
    let mut reader = client.reader(TOPIC, 0).build().await.unwrap();
    expect(&mut reader, 0..10).await;

    fake.world().fetch_script = Box::new(|_| Some(ErrorCode::NoLeader));
    let builder = client
        .reader(TOPIC, 0)
        .unavailable_timeout(std::time::Duration::from_millis(200));
    let mut reader = builder.build().await.unwrap();
    let error = soon(reader.next()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NoLeader));
    assert!(error.is_retryable() && !error.outcome_unknown());
}

#[tokio::test]
async fn a_damaged_batch_and_one_that_unpacks_to_too_much_are_refused() {
    let mut damaged = BytesMut::from(&batch(0..10, Compression::None)[..]);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let mut bomb = BatchBuilder::new(Compression::Zstd, 1 << 22);
    assert!(bomb.push(None, Some(&vec![0; 1 << 21]), &[], 0).unwrap());
    for bytes in [damaged.freeze(), bomb.build()] {
        let fake = Fake::start(1, 1).await;
        fake.world().logs[0].push(bytes);
        let client = fake.client().await;
        let builder = client.reader(TOPIC, 0).max_decompressed_bytes(1 << 20);
        let mut reader = builder.build().await.unwrap();
        let error = soon(reader.next()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(soon(reader.next()).await.is_none());
    }
}

#[tokio::test]
async fn a_reader_nobody_polls_fetches_no_more_than_its_bound() {
    let fake = Fake::start(1, 1).await;
    fill(&fake, 0..200);
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let furthest = asked.clone();
    fake.world().fetch_script = Box::new(move |request| {
        furthest.fetch_max(request.offset, std::sync::atomic::Ordering::Relaxed);
        None
    });
    let client = fake.client().await;
    let mut reader = client
        .reader(TOPIC, 0)
        .prefetch_bytes(1_000)
        .build()
        .await
        .unwrap();
    expect(&mut reader, 0..1).await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let ahead = asked.load(std::sync::atomic::Ordering::Relaxed);
    assert!(ahead < 300, "1,000 bytes are not {ahead} records");
    expect(&mut reader, 1..2_000).await;
}
