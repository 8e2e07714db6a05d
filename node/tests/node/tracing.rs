//! One trace from a producer through the broker to a handler and its own records, with OpenTelemetry in the
//! process.

use std::sync::Arc;

use futures_util::StreamExt;
use opentelemetry::trace::{SpanId, SpanKind, Status, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use parking_lot::Mutex;
use ropewalk_client::{Client, ConsumedRecord, Delivery, Error, Offset, Record, headers};
use ropewalk_proto::v1;
use tokio::time::timeout;
use tonic::Request;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;
use tracing::{Instrument, info_span};
use tracing_subscriber::layer::SubscriberExt;

use crate::support::{Node, PATIENCE, TOPIC, batch};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// The spans of this thread, which runs the whole test.
struct Spans {
    exporter: InMemorySpanExporter,
    _provider: SdkTracerProvider,
    _guard: DefaultGuard,
}

impl Spans {
    fn recorded() -> Spans {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder();
        let provider = provider.with_simple_exporter(exporter.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let all = tracing_subscriber::registry().with(layer);
        Spans {
            exporter,
            _provider: provider,
            _guard: tracing::subscriber::set_default(all.with(LevelFilter::INFO)),
        }
    }

    fn all(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().expect("a lock")
    }

    /// The only finished span of this name.
    #[track_caller]
    fn one(&self, name: &str) -> SpanData {
        let mut named = self.all();
        named.retain(|span| span.name == name);
        assert_eq!(named.len(), 1, "{name}: {:#?}", self.all());
        named.remove(0)
    }

    #[track_caller]
    fn none(&self, name: &str) {
        let all = self.all();
        assert!(all.iter().all(|span| span.name != name), "{all:#?}");
    }
}

fn id(span: &SpanData) -> SpanId {
    span.span_context.span_id()
}

fn attribute(span: &SpanData, name: &str) -> String {
    let mut all = span.attributes.iter();
    let found = all.find(|attribute| attribute.key.as_str() == name);
    found.map_or_else(String::new, |found| found.value.to_string())
}

async fn client(node: &Node) -> Client {
    let connected = Client::connect([node.config.listen.clone()]).await;
    connected.expect("the node answers")
}

#[tokio::test]
async fn a_trace_goes_from_the_producer_over_the_broker_to_the_handler_and_on() {
    let mut node = Node::start().await;
    node.create_topic("answers", 1).await.unwrap();
    let spans = Spans::recorded();
    let client = client(&node).await;
    let (asking, answering) = (client.producer(TOPIC), client.producer("answers"));
    let (asking, answering) = (
        asking.build().await.unwrap(),
        answering.build().await.unwrap(),
    );
    async {
        let sent = asking.send(Record::event("asked")).await.unwrap();
        sent.await.unwrap();
    }
    .instrument(info_span!("ask"))
    .await;

    let subscription = client.subscribe("answerers").topics([TOPIC]).build();
    let subscription = subscription.await.unwrap();
    let handle = subscription.handle();
    let asked: Arc<Mutex<Option<ConsumedRecord>>> = Arc::default();
    let by_handler = asked.clone();
    let running = subscription.run_concurrent(1, move |delivery: Delivery| {
        let (answering, handle, asked) = (answering.clone(), handle.clone(), by_handler.clone());
        async move {
            if delivery.event_type() == Some("asked") {
                answering.send(Record::event("answered")).await?.await?;
                *asked.lock() = Some(delivery.record().clone());
                handle.shutdown();
            }
            Ok::<(), Error>(())
        }
    });
    timeout(PATIENCE, running).await.unwrap().unwrap();

    let ask = spans.one("ask");
    let trace = ask.span_context.trace_id();
    let carried = asked.lock().as_ref().unwrap().trace_context().unwrap();
    assert_eq!(carried.trace_id(), trace.to_string());
    assert_eq!(carried.span_id(), id(&ask).to_string());

    let all = spans.all();
    let of = |name: &str, parent: &SpanData| -> SpanData {
        let mut found = all.iter().filter(|span| {
            span.name == name
                && span.parent_span_id == id(parent)
                && span.span_context.trace_id() == trace
        });
        let one = found
            .next()
            .unwrap_or_else(|| panic!("no {name}: {all:#?}"));
        assert!(found.next().is_none(), "{name} twice: {all:#?}");
        one.clone()
    };
    let produce = of("produce", &ask);
    assert_eq!(produce.span_kind, SpanKind::Server);
    assert!(produce.parent_span_is_remote);
    assert_eq!(attribute(&produce, "messaging.destination.name"), TOPIC);
    assert_eq!(attribute(&produce, "messaging.offset"), "1");
    assert_eq!(attribute(&produce, "trace_id"), trace.to_string());
    of("propose", &produce);
    of("commit", &produce);

    let process = of("process", &ask);
    assert_eq!(process.span_kind, SpanKind::Consumer);
    assert_eq!(attribute(&process, "event_type"), "asked");
    // The records that the handler sent belong to its span, up to the broker's.
    let answered = of("produce", &process);
    assert_eq!(
        attribute(&answered, "messaging.destination.name"),
        "answers"
    );
}

#[tokio::test]
async fn what_comes_without_a_sampled_trace_leaves_no_span_and_what_is_malformed_no_error() {
    let mut node = Node::start().await;
    let spans = Spans::recorded();
    let sampled = format!("00-{TRACE}-{SPAN}-01");
    let unsampled = format!("00-{TRACE}-{SPAN}-00");
    for parent in ["", "00-what-ever-01", "\u{fffd}", &unsampled] {
        let headers = vec![v1::Header {
            key: headers::TRACEPARENT.into(),
            value: parent.to_owned().into(),
        }];
        let request = v1::PublishRequest {
            topic: TOPIC.into(),
            headers,
            ..Default::default()
        };
        node.client.publish(request).await.unwrap();
        produce(&mut node, TOPIC, parent, "\n").await.unwrap();
    }
    spans.none("produce");
    spans.none("publish");
    // An invalid trace state is dropped from a valid trace.
    produce(&mut node, TOPIC, &sampled, "\n").await.unwrap();
    assert_eq!(attribute(&spans.one("produce"), "trace_id"), TRACE);
}

#[tokio::test]
async fn a_refused_batch_is_an_error_in_its_trace() {
    let mut node = Node::start().await;
    let spans = Spans::recorded();
    let sampled = format!("00-{TRACE}-{SPAN}-01");
    let refused = produce(&mut node, "nowhere", &sampled, "vendor=1").await;
    assert!(refused.is_err());
    let span = spans.one("produce");
    assert!(matches!(span.status, Status::Error { .. }), "{span:?}");
    assert_eq!(span.parent_span_id.to_string(), SPAN);
    assert_eq!(span.span_context.trace_state().get("vendor"), Some("1"));
}

#[tokio::test]
async fn a_single_record_joins_the_trace_of_its_call_or_else_its_own() {
    let mut node = Node::start().await;
    let spans = Spans::recorded();
    let header = |parent: &str| v1::Header {
        key: headers::TRACEPARENT.into(),
        value: parent.to_owned().into(),
    };
    let record = |parent: &str| v1::PublishRequest {
        topic: TOPIC.into(),
        headers: vec![header(parent)],
        ..Default::default()
    };
    let own = format!("00-{TRACE}-{SPAN}-01");
    node.client.publish(record(&own)).await.unwrap();
    let publish = spans.one("publish");
    assert_eq!(publish.span_context.trace_id().to_string(), TRACE);
    assert_eq!(attribute(&publish, "messaging.offset"), "1");

    spans.exporter.reset();
    let mut call = Request::new(record(&own));
    let of_call = "00-0000000000000000000000000000000c-00000000000000ab-01";
    let metadata = call.metadata_mut();
    metadata.insert(headers::TRACEPARENT, of_call.parse().unwrap());
    node.client.publish(call).await.unwrap();
    assert_eq!(
        spans.one("publish").parent_span_id.to_string(),
        "00000000000000ab"
    );
}

#[tokio::test]
async fn a_record_keeps_the_trace_it_was_given_and_is_handled_in_it() {
    let node = Node::start().await;
    let spans = Spans::recorded();
    let client = client(&node).await;
    let given = format!("00-{TRACE}-{SPAN}-01");
    async {
        let record = Record::new().header(headers::TRACEPARENT, given.clone());
        client.publish(TOPIC, record).await.unwrap();
        client.publish(TOPIC, Record::new()).await.unwrap();
    }
    .instrument(info_span!("elsewhere"))
    .await;
    let mut publish = spans.all();
    publish.retain(|span| span.name == "publish");
    let elsewhere = spans.one("elsewhere");
    let parents: Vec<String> = publish
        .iter()
        .map(|span| span.parent_span_id.to_string())
        .collect();
    assert_eq!(parents, [SPAN, &id(&elsewhere).to_string()]);

    let reader = client.reader(TOPIC, 0).from(Offset::At(1));
    let mut reader = reader.build().await.unwrap();
    let record = timeout(PATIENCE, reader.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    record
        .handle(async { info_span!("work").in_scope(|| {}) })
        .await;
    let process = spans.one("process");
    assert_eq!(process.parent_span_id.to_string(), SPAN);
    assert_eq!(spans.one("work").parent_span_id, id(&process));
}

async fn produce(node: &mut Node, topic: &str, parent: &str, state: &str) -> Result<u64, String> {
    let request = v1::ProduceRequest {
        topic: topic.into(),
        batch: batch((-1, -1, -1), &[b"traced"]),
        traceparent: parent.into(),
        tracestate: state.into(),
        ..Default::default()
    };
    let requests = futures_util::stream::iter([request]);
    let mut answers = node
        .client
        .produce(requests)
        .await
        .expect("the stream opens")
        .into_inner();
    let answer = answers.message().await.expect("the stream lives");
    let answer = answer.expect("an answer");
    match answer.error {
        Some(error) => Err(error.message),
        None => Ok(answer.base_offset),
    }
}
