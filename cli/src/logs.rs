//! Logs, on stderr, so that results on stdout stay clean. A node passes its lines to a writer thread: a
//! reader that stalls blocks that thread, and never the node.

mod each;
mod format;
mod pace;

use std::io::{self, IsTerminal, Write, stderr};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::args::CliCommand;
use crate::exit::usage;
use crate::otlp::{self, Spans};
use crate::output::shown_lines;

use each::EachLine;
pub use format::node_is;

/// Variables of the log filter; the first one that is set wins.
const VARIABLES: [&str; 2] = ["ROPEWALK_LOG", "RUST_LOG"];

/// Variable of the line format: `text`, or `json` for one object per line.
const FORMAT: &str = "ROPEWALK_LOG_FORMAT";

/// Maximum number of a node's lines that wait to be written; further ones are dropped, and counted.
const WAITING_LINES: usize = 4_096;

/// Writer of a node's lines. There is one stderr, so there is one writer.
static WRITING: OnceLock<Writing> = OnceLock::new();

/// True while all nodes of this process are shutting down.
static PEERS_STOP: AtomicBool = AtomicBool::new(false);

/// Starts to drop lines about peers that do not answer: all of them are stopping now.
pub fn peers_are_stopping() {
    PEERS_STOP.store(true, Ordering::Relaxed);
}

struct Writing {
    lines: NonBlocking,
    lost: ErrorCounter,
    /// The writer thread, until its stop.
    thread: Mutex<Option<WorkerGuard>>,
}

/// Starts logging, with the filter from the environment or the default of the command. Spans are sent to their
/// collector independently of the log filter.
pub fn init(verb: &CliCommand, spans: Option<&Spans>) -> anyhow::Result<()> {
    let filter = filter(verb)?;
    let writer = match verb {
        CliCommand::Node(_) | CliCommand::Dev(_) => BoxMakeWriter::new(writing()?),
        _ => BoxMakeWriter::new(stderr),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        // Internal errors are not logged: their log line would fail too, and panic. That would end a replica
        // for a log on a full disk.
        .log_internal_errors(false);
    let format = std::env::var(FORMAT).unwrap_or_default();
    let lines = match format.as_str() {
        "" | "text" => {
            let lines = lines.map_fmt_fields(format::Escaped);
            lines.with_ansi(stderr().is_terminal()).boxed()
        }
        "json" => {
            let lines = lines.json().flatten_event(true);
            match verb {
                CliCommand::Node(_) => lines.map_event_format(format::Numbered).boxed(),
                _ => lines.boxed(),
            }
        }
        other => {
            let other = other.chars().take(64).collect::<String>();
            return Err(usage(format!(
                "{FORMAT}={other:?} is invalid; set text or json"
            )));
        }
    };
    let wanted = EachLine(|metadata| {
        let of_peers = || metadata.target().starts_with("openraft");
        !(PEERS_STOP.load(Ordering::Relaxed) && of_peers())
    });
    // Last, so that a line that is not wanted does not count as left out by the pace.
    let paced = EachLine(pace::passes);
    let lines = match verb {
        CliCommand::Dev(_) => lines.with_filter(filter.and(wanted).and(paced)).boxed(),
        _ => lines.with_filter(filter.and(paced)).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines)
        .with(spans.map(otlp::layer))
        .init();
    if WRITING.get().is_some() {
        // The default hook writes to stderr, and blocks until its reader takes the line.
        std::panic::set_hook(Box::new(|info| {
            let backtrace = std::backtrace::Backtrace::capture();
            // A bug is reported even if the filter drops everything else.
            match tracing::enabled!(tracing::Level::ERROR) {
                true => tracing::error!(%backtrace, "{info}"),
                false => say(&format!("ropewalk: {info}\n{backtrace}")),
            }
        }));
    }
    Ok(())
}

fn filter(verb: &CliCommand) -> anyhow::Result<EnvFilter> {
    let fallback = match verb {
        // openraft logs each failed vote and heartbeat at info, for many groups at once.
        CliCommand::Node(_) => "info,openraft=warn",
        // Three nodes that start together warn about each other's votes, which is normal.
        CliCommand::Dev(_) => "warn,openraft=error",
        _ => "warn",
    };
    let set = VARIABLES.iter().find_map(|name| {
        Some((
            name,
            std::env::var(name).ok().filter(|text| !text.is_empty())?,
        ))
    });
    match &set {
        Some((name, text)) => EnvFilter::try_new(text).map_err(|error| {
            usage(format!(
                "{name}={text:?}: {error}; set a level such as info, or target=level"
            ))
        }),
        None => Ok(EnvFilter::new(fallback)),
    }
}

/// Starts a thread that writes lines. It has its own handle of stderr, so that a blocked write does not hold
/// the lock with which other threads print.
fn writing() -> io::Result<NonBlocking> {
    let stderr = std::fs::File::from(stderr().as_fd().try_clone_to_owned()?);
    let (lines, thread) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("log")
        .finish(stderr);
    let writing = WRITING.get_or_init(|| Writing {
        lost: lines.error_counter(),
        lines,
        thread: Mutex::new(Some(thread)),
    });
    Ok(writing.lines.clone())
}

/// Lines left out because too many waited to be written, or libraries wrote too many of one kind.
pub fn left_out() -> u64 {
    lost().saturating_add(pace::left_out())
}

/// Lines left out because too many waited to be written.
fn lost() -> u64 {
    let lost = WRITING.get().map(|writing| writing.lost.dropped_lines());
    lost.map_or(0, |lost| u64::try_from(lost).unwrap_or(u64::MAX))
}

/// Prints a message to the user after the pending log lines. Parts of it come from others, and must not
/// control the terminal.
pub fn say(what: &str) {
    let what = shown_lines(what);
    let Some(writing) = WRITING.get() else {
        // Stderr may have no reader, and the usual macro then panics.
        let _ = writeln!(stderr().lock(), "{what}");
        return;
    };
    // This cannot fail; at worst the line counts as dropped.
    let _ = writing.lines.clone().write(format!("{what}\n").as_bytes());
}

/// Waits until all pending lines are written, for at most one second. Later lines are not logged.
pub fn end() {
    let Some(writing) = WRITING.get() else {
        return;
    };
    let Some(thread) = writing.thread.lock().take() else {
        return;
    };
    // If there is no room for another line, there is none for the stop message either. The library would
    // report that on stdout, which belongs to results.
    let lost_before = lost();
    let _ = writing.lines.clone().write(&[]);
    match lost() > lost_before {
        true => std::mem::forget(thread),
        false => drop(thread),
    }
}
