//! Logs, on stderr, so that results on stdout stay clean.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::args::Verb;
use crate::exit::usage;
use crate::otlp::{self, Spans};

/// Where the filter is taken from, the first that is set.
const VARIABLES: [&str; 2] = ["ROPEWALK_LOG", "RUST_LOG"];

/// What a line looks like: `text`, or `json` with an object a line.
const FORMAT: &str = "ROPEWALK_LOG_FORMAT";

/// Begins to log: what the environment asks for, otherwise what suits the verb. Spans go where they
/// are sent, whatever is logged.
pub fn init(verb: &Verb, spans: Option<&Spans>) -> anyhow::Result<()> {
    let fallback = match verb {
        // openraft tells each vote and each heartbeat that failed at info: of many groups, at once.
        Verb::Node(_) => "info,openraft=warn",
        _ => "warn",
    };
    let set = VARIABLES.iter().find_map(|name| {
        Some((
            name,
            std::env::var(name).ok().filter(|text| !text.is_empty())?,
        ))
    });
    let filter = match &set {
        Some((name, text)) => EnvFilter::try_new(text).map_err(|error| {
            usage(format!(
                "{name}={text:?}: {error}; write a level, as in info, or target=level"
            ))
        })?,
        None => EnvFilter::new(fallback),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(stderr)
        // Where they can't be written they can't be complained about either: that would panic, and
        // end a replica for a log on a full disk.
        .log_internal_errors(false);
    let format = std::env::var(FORMAT).unwrap_or_default();
    let lines = match format.as_str() {
        "" | "text" => lines.with_ansi(stderr().is_terminal()).boxed(),
        "json" => lines.json().flatten_event(true).boxed(),
        other => {
            let other = other.chars().take(64).collect::<String>();
            return Err(usage(format!("{FORMAT}={other:?}: write text or json")));
        }
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(spans.map(otlp::layer))
        .init();
    Ok(())
}
