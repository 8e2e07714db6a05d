//! Events: headers that the client adds on send, and headers that pass from one event to the next.

use std::sync::Arc;

use futures_util::StreamExt;
use parking_lot::Mutex;
use ropewalk_client::{Client, ConsumedRecord, Delivery, Error, Record, headers};

use crate::fake::{Fake, GROUP, TOPIC, offer, soon};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Sends records one after another, and reads them back.
async fn there_and_back<const N: usize>(
    client: &Client,
    records: [Record; N],
) -> [ConsumedRecord; N] {
    let producer = client.producer(TOPIC).build().await.unwrap();
    let mut read = Vec::new();
    for record in records {
        let sent = producer.send(record).await.unwrap();
        let offset = soon(sent).await.unwrap().offset;
        let reader = client.reader(TOPIC, 0);
        let reader = reader.from(ropewalk_client::Offset::At(offset));
        let mut reader = reader.build().await.unwrap();
        read.push(soon(reader.next()).await.unwrap().unwrap());
    }
    read.try_into().unwrap()
}

#[tokio::test]
async fn an_event_gets_what_it_lacks_and_keeps_what_it_has() {
    let fake = Fake::start(1, 1).await;
    let client = fake.builder().source("/gates/61").connect().await.unwrap();
    let given = Record::event("landed")
        .event_id("id 1")
        .correlation_id("day 1")
        .source("/elsewhere")
        .content_type("text/plain")
        .timestamp_ms(1_769_817_600_123)
        .event_id("id 2");
    let [bare, given] = there_and_back(&client, [Record::event("landed"), given]).await;
    assert_eq!(bare.event_type(), Some("landed"));
    assert_eq!(bare.event_source(), Some("/gates/61"));
    assert_eq!(
        bare.header(headers::EVENT_TIME),
        Some(&b"2023-11-14T22:13:20.000Z"[..])
    );
    assert_eq!(bare.header(headers::SPEC_VERSION), Some(&b"1.0"[..]));
    let id = bare.event_id().unwrap();
    assert!(id.len() == 36 && id.starts_with("018bcfe5-6800-7"), "{id}");
    assert_eq!(bare.correlation_id(), Some(id));
    assert_eq!((bare.causation_id(), bare.trace_context()), (None, None));
    assert_ne!(client.event_id(), client.event_id());

    assert_eq!(given.event_id(), Some("id 2"));
    assert_eq!(given.correlation_id(), Some("day 1"));
    assert_eq!(given.event_source(), Some("/elsewhere"));
    assert_eq!(given.event_time_ms(), Some(1_769_817_600_123));
    assert_eq!(
        given.header(headers::CONTENT_TYPE),
        Some(&b"text/plain"[..])
    );
    let mut names: Vec<&str> = given.headers.iter().map(|it| it.key.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), given.headers.len(), "{names:?}");
}

#[tokio::test]
async fn a_record_that_is_no_event_is_sent_as_it_is() {
    let fake = Fake::start(1, 1).await;
    let client = fake.client().await;
    let plain = Record::new().header("ce_type", "by hand");
    let [plain, bare] = there_and_back(&client, [plain, Record::new()]).await;
    assert_eq!(plain.headers.len(), 1);
    assert_eq!(bare.headers, []);
}

#[tokio::test]
async fn what_a_record_causes_belongs_to_what_it_belongs_to() {
    let fake = Fake::start(1, 1).await;
    let client = fake.client().await;
    let first = Record::event("landed").header(headers::TRACEPARENT, PARENT);
    let first = first.header(headers::TRACESTATE, "vendor=1");
    let [first] = there_and_back(&client, [first]).await;
    let event = Record::event("unloaded").caused_by(&first);
    let plain = Record::new().value("61").caused_by(&first);
    let [event, plain] = there_and_back(&client, [event, plain]).await;
    for caused in [&event, &plain] {
        assert_eq!(caused.correlation_id(), first.event_id());
        assert_eq!(caused.causation_id(), first.event_id());
        let trace = caused.trace_context().unwrap();
        assert_eq!(
            (trace.to_string(), trace.state()),
            (PARENT.into(), Some("vendor=1"))
        );
    }
    assert_ne!(event.event_id(), first.event_id());
    assert_eq!(plain.event_id(), None);

    let [last] = there_and_back(&client, [Record::event("fetched").caused_by(&event)]).await;
    assert_eq!(last.correlation_id(), first.event_id());
    assert_eq!(last.causation_id(), event.event_id());
    let elsewhere = Record::event("paid")
        .caused_by(&event)
        .correlation_id("bill 7");
    let of_nothing = Record::event("begun").caused_by(&ConsumedRecord {
        headers: Vec::new(),
        ..plain
    });
    let [elsewhere, of_nothing] = there_and_back(&client, [elsewhere, of_nothing]).await;
    assert_eq!(elsewhere.correlation_id(), Some("bill 7"));
    assert_eq!(elsewhere.causation_id(), event.event_id());
    assert_eq!(of_nothing.correlation_id(), of_nothing.event_id());
    assert_eq!(of_nothing.causation_id(), None);
}

#[tokio::test]
async fn what_a_handler_sends_is_caused_by_what_it_handles() {
    let fake = Fake::start(1, 1).await;
    let client = fake.client().await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    let asked = Record::event("asked").header(headers::TRACEPARENT, PARENT);
    soon(producer.send(asked).await.unwrap()).await.unwrap();
    fake.assign(vec![offer(0, 1, false)]);
    let subscription = client.subscribe(GROUP).topics([TOPIC]).build();
    let subscription = subscription.await.unwrap();
    let handle = subscription.handle();
    let handled: Arc<Mutex<Vec<ConsumedRecord>>> = Arc::default();
    let by_handler = handled.clone();
    let handler = move |delivery: Delivery| {
        let (producer, handle, handled) = (producer.clone(), handle.clone(), by_handler.clone());
        async move {
            handled.lock().push(delivery.record().clone());
            match delivery.event_type() {
                Some("asked") => {
                    producer.send(Record::event("answered")).await?.await?;
                    producer.send(Record::new()).await?.await?;
                }
                Some("answered") => {}
                _ => handle.shutdown(),
            }
            Ok::<(), Error>(())
        }
    };
    soon(subscription.run_concurrent(1, handler)).await.unwrap();
    let handled = handled.lock();
    let [asked, answered, plain] = &handled[..] else {
        panic!("{handled:?}");
    };
    assert_eq!(answered.correlation_id(), asked.event_id());
    assert_eq!(answered.causation_id(), asked.event_id());
    for passed_on in [answered, plain] {
        assert_eq!(passed_on.trace_context().unwrap().to_string(), PARENT);
    }
    assert_eq!((plain.correlation_id(), plain.event_id()), (None, None));
}

#[tokio::test]
async fn who_reads_the_stream_says_what_is_done_for_which_delivery() {
    let fake = Fake::start(1, 1).await;
    let client = fake.client().await;
    let [asked] = there_and_back(&client, [Record::event("asked")]).await;
    fake.assign(vec![offer(0, 1, false)]);
    let subscription = client.subscribe(GROUP).topics([TOPIC]).build();
    let mut subscription = subscription.await.unwrap();
    let delivery = soon(subscription.next()).await.unwrap().unwrap();
    let answer = || there_and_back(&client, [Record::event("answered")]);
    let [within] = delivery.handle(answer()).await;
    assert_eq!(within.causation_id(), asked.event_id());
    let [outside] = answer().await;
    assert_eq!(outside.causation_id(), None);
}

#[tokio::test]
async fn a_node_is_told_of_a_trace_that_is_to_be_recorded_and_of_no_other() {
    let fake = Fake::start(1, 1).await;
    let client = fake.client().await;
    let traced = |parent: &str| Record::new().header(headers::TRACEPARENT, parent.to_owned());
    let records = [
        traced(PARENT),
        traced(&PARENT.replace("-01", "-00")),
        traced("00-what-ever-01"),
        Record::new(),
    ];
    let read = there_and_back(&client, records).await;
    let told: Vec<String> = fake.seen().into_iter().map(|it| it.traceparent).collect();
    assert_eq!(told, [PARENT, "", "", ""]);
    let malformed = &read[2];
    assert_eq!(
        malformed.header(headers::TRACEPARENT),
        Some(&b"00-what-ever-01"[..])
    );
    assert_eq!(malformed.trace_context(), None);
    assert_eq!(soon(malformed.handle(async { 7 })).await, 7);
}

#[tokio::test]
async fn of_several_traces_in_a_batch_the_first_to_be_recorded_is_told() {
    let fake = Fake::start(1, 1).await;
    let client = fake.client().await;
    let producer = client.producer(TOPIC);
    let producer = producer.linger(std::time::Duration::from_secs(60));
    let producer = producer.build().await.unwrap();
    let other = PARENT.replace("b7ad6b7169203331", "00000000000000ff");
    for parent in [PARENT.replace("-01", "-00"), PARENT.into(), other] {
        let record = Record::new().header(headers::TRACEPARENT, parent);
        drop(producer.send(record).await.unwrap());
    }
    soon(producer.flush()).await.unwrap();
    let seen = fake.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].count, seen[0].traceparent.as_str()), (3, PARENT));
}
