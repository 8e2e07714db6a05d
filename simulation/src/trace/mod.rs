//! Events of a run: all of them for the comparison of runs ([`Trace`]), and a summary for a person who looks
//! for a bug ([`Story`]).

mod entry;
mod narrate;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

pub use entry::Entry;
pub use narrate::Story;

/// A file with a line for every event of our crates, of openraft from `info` up, and of the
/// network. Clones write to the same file.
#[derive(Debug, Clone)]
pub struct Trace {
    out: Arc<Mutex<Out>>,
}

#[derive(Debug)]
struct Out {
    file: BufWriter<File>,
    failed: Option<io::Error>,
}

impl Trace {
    /// Begins a trace in a new file.
    ///
    /// # Errors
    /// If it can't be created.
    pub fn create(path: &Path) -> io::Result<Trace> {
        let out = Out {
            file: BufWriter::new(File::create(path)?),
            failed: None,
        };
        Ok(Trace {
            out: Arc::new(Mutex::new(out)),
        })
    }

    /// Filter of the events to write.
    pub fn filter() -> Targets {
        Targets::new()
            .with_target("ropewalk", LevelFilter::DEBUG)
            .with_target("openraft", LevelFilter::INFO)
            .with_target("turmoil", LevelFilter::TRACE)
    }

    /// Flushes the buffered lines.
    ///
    /// # Errors
    /// If a line could not be written.
    pub fn finish(&self) -> io::Result<()> {
        let mut out = self.out.lock();
        match out.failed.take() {
            Some(error) => Err(error),
            None => out.file.flush(),
        }
    }
}

impl Out {
    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let at = entry.at.as_secs_f64();
        let host = entry.host.as_deref().unwrap_or("-");
        let (level, target, message) = (entry.level, entry.target, &entry.message);
        write!(self.file, "{at:.3} {host} {level} {target}: {message}")?;
        for (name, value) in &entry.fields {
            write!(self.file, " {name}={}", value.escape_debug())?;
        }
        writeln!(self.file)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Trace {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        Entry::remember_host(attributes, id, &context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // The read of a socket from its delivered data; the trace has the bytes twice already.
        let module = event.metadata().module_path().unwrap_or_default();
        if module.starts_with("turmoil::net") {
            return;
        }
        let Some(entry) = Entry::read(event, &context) else {
            return;
        };
        // turmoil announces each step, a thousand a second.
        if module == "turmoil::sim" && entry.message.starts_with("step ") {
            return;
        }
        let mut out = self.out.lock();
        if let Err(error) = out.write(&entry) {
            out.failed.get_or_insert(error);
        }
    }
}
