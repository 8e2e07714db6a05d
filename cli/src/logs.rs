//! Logs, on stderr, so that results on stdout stay clean.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use crate::args::Verb;
use crate::exit::usage;

/// Where the filter is taken from, the first that is set.
const VARIABLES: [&str; 2] = ["ROPEWALK_LOG", "RUST_LOG"];

/// What a line looks like: `text`, or `json` with an object a line.
const FORMAT: &str = "ROPEWALK_LOG_FORMAT";

/// Begins to log: what the environment asks for, otherwise what suits the verb.
pub fn init(verb: &Verb) -> anyhow::Result<()> {
    let fallback = match verb {
        Verb::Node(_) => "info",
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
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        // Where they can't be written they can't be complained about either: that would panic, and
        // end a replica for a log on a full disk.
        .log_internal_errors(false);
    let format = std::env::var(FORMAT).unwrap_or_default();
    match format.as_str() {
        "" | "text" => lines.with_ansi(stderr().is_terminal()).init(),
        "json" => lines.json().flatten_event(true).init(),
        other => {
            let other = other.chars().take(64).collect::<String>();
            return Err(usage(format!("{FORMAT}={other:?}: write text or json")));
        }
    }
    Ok(())
}
