//! Spans for a collector, over OTLP, if the environment names one. The variables are OpenTelemetry's
//! own: <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>.

use std::time::Duration;

use anyhow::Context;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, SpanExporter,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

/// Service name of the spans, unless [`NAME`] sets another.
const SERVICE: &str = "ropewalk";
const NAME: &str = "OTEL_SERVICE_NAME";
/// Target of the spans that are sent.
const TARGET: &str = "ropewalk";
/// Time limit for sending the last spans.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// Sends spans until it is dropped, and then the remaining ones.
#[derive(Debug)]
pub struct Spans(SdkTracerProvider);

impl Drop for Spans {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_WITHIN) {
            tracing::warn!(%error, "spans lost: the last ones were not sent to the collector");
        }
    }
}

/// Returns true if the environment names a collector.
fn is_wanted() -> bool {
    let names = [
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
        OTEL_EXPORTER_OTLP_ENDPOINT,
    ];
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    names.iter().any(is_set)
}

/// Starts to send spans if the environment names a collector. Call it within tokio.
///
/// # Errors
/// The endpoint is invalid.
pub fn spans() -> anyhow::Result<Option<Spans>> {
    if !is_wanted() {
        return Ok(None);
    }
    let exporter = SpanExporter::builder().with_tonic().build();
    let exporter = exporter.with_context(|| {
        format!("{OTEL_EXPORTER_OTLP_ENDPOINT} is not the address of a collector; set one such as http://localhost:4317")
    })?;
    // The resource already has the attributes from the environment.
    let mut resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if std::env::var_os(NAME).is_none() {
        resource = resource.with_service_name(SERVICE);
    }
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource.build())
        .build();
    Ok(Some(Spans(provider)))
}

/// Layer that turns this program's `tracing` spans into OpenTelemetry spans.
pub fn layer<S>(spans: &Spans) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let own = Targets::new().with_target(TARGET, LevelFilter::INFO);
    tracing_opentelemetry::layer()
        .with_tracer(spans.0.tracer(SERVICE))
        .with_filter(own)
}
