//! A node's spans, as received by a collector.

#![allow(clippy::disallowed_types)] // the collector is not a node, so it opens sockets itself

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use ropewalk_demo::cluster;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::support::{PATIENCE, binary, ropewalk, ropewalk_with};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "00000000000000ab";
/// Spans of a batch: on its leader, on the leader's disk, and on another node.
const EXPECTED: [&str; 5] = ["produce", "propose", "sync", "replicate", "commit"];

#[derive(Debug)]
struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.0.send(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
async fn a_traced_record_is_seen_by_the_collector_that_the_environment_names() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (told, mut heard) = mpsc::unbounded_channel();
    let collector = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(Collector(told)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let collector = tokio::spawn(collector);

    let dir = tempfile::tempdir().unwrap();
    let mut nodes = cluster::cluster(binary(), dir.path(), 3).unwrap();
    let env = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT".into(), endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY".into(), "100".into()),
    ];
    for node in &mut nodes {
        node.env = env.clone();
    }
    cluster::start_all(&mut nodes, PATIENCE).await.unwrap();
    let bootstrap = ["--bootstrap", &nodes[0].address];
    let create = ["topic", "create", "landings", "--replicas", "3"];
    ropewalk(&[&bootstrap[..], &create].concat()).await.ok();
    let health = ["cluster", "health", "--wait", "60s"];
    ropewalk(&[&bootstrap[..], &health].concat()).await.ok();
    let parent = format!("traceparent=00-{TRACE}-{CALLER}-01");
    let produce = ["produce", "landings", "--header", &parent];
    let produce = [&bootstrap[..], &produce].concat();
    ropewalk_with(b"one\n", &produce).await.ok();

    let mut spans: Vec<Span> = Vec::new();
    let all = async {
        while !EXPECTED.iter().all(|name| named(&spans, name).is_some()) {
            let request = heard.recv().await.expect("the collector has ended");
            spans.extend(request.resource_spans.into_iter().flat_map(of_ropewalk));
        }
    };
    let seen = timeout(PATIENCE, all).await;
    assert!(seen.is_ok(), "only {spans:?}; {}", nodes[0].last_words());
    for span in &spans {
        assert_eq!(hex(&span.trace_id), TRACE, "{span:?}");
    }
    let id = |name| hex(&named(&spans, name).unwrap().span_id);
    let parent = |name| hex(&named(&spans, name).unwrap().parent_span_id);
    assert_eq!(parent("produce"), CALLER);
    for within in ["propose", "commit"] {
        assert_eq!(parent(within), id("produce"), "{within}");
    }
    for within in ["sync", "replicate"] {
        assert_eq!(parent(within), id("propose"), "{within}");
    }
    for mut node in nodes {
        node.terminate(PATIENCE).await.unwrap();
    }
    collector.abort();
}

fn named<'a>(spans: &'a [Span], name: &str) -> Option<&'a Span> {
    spans.iter().find(|span| span.name == name)
}

fn of_ropewalk(from: ResourceSpans) -> impl Iterator<Item = Span> {
    let attributes = from.resource.unwrap_or_default().attributes;
    let service = attributes.iter().find(|one| one.key == "service.name");
    let service = format!("{:?}", service.unwrap().value);
    assert!(service.contains("ropewalk"), "{service}");
    from.scope_spans.into_iter().flat_map(|scope| scope.spans)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn an_endpoint_that_is_none_is_refused_with_what_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = cluster::cluster(binary(), dir.path(), 1).unwrap();
    nodes[0].env = vec![(
        "OTEL_EXPORTER_OTLP_ENDPOINT".into(),
        "not an address".into(),
    )];
    nodes[0].spawn().unwrap();
    let status = nodes[0].ended(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(
        nodes[0].last_words().contains("http://localhost:4317"),
        "{}",
        nodes[0].last_words()
    );
}
