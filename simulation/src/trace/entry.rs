//! One event of a run in the form of a line: virtual time, host and message.

use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::virtual_time;

/// A longer value is cut, and a digest stands for the rest.
const VALUE_BYTES: usize = 400;
/// Length of a value after the cut.
const CUT_BYTES: usize = 48;
/// turmoil's span around all work of a host.
const HOST_SPAN: &str = "node";

/// One event.
#[derive(Debug)]
pub struct Entry {
    /// Time since the simulation began.
    pub at: Duration,
    /// Host of the event; none between hosts.
    pub host: Option<String>,
    /// Log level.
    pub level: Level,
    /// Target: the part of the code that logged it.
    pub target: &'static str,
    /// The message.
    pub message: String,
    /// The fields.
    pub fields: Vec<(&'static str, String)>,
}

/// The name of a host, kept with its span.
struct Host(String);

impl Entry {
    /// Reads an event. None outside of a simulation.
    pub fn read<S>(event: &Event<'_>, context: &Context<'_, S>) -> Option<Entry>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let at = virtual_time::now()?;
        let host = context.event_scope(event).and_then(|scope| {
            let mut hosts = scope.filter_map(|span| {
                let extensions = span.extensions();
                extensions.get::<Host>().map(|host| host.0.clone())
            });
            hosts.next()
        });
        let mut entry = Entry {
            at,
            host,
            level: *event.metadata().level(),
            target: event.metadata().target(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut entry);
        Some(entry)
    }

    /// Remembers the host of one of turmoil's spans.
    pub fn remember_host<S>(attributes: &Attributes<'_>, id: &Id, context: &Context<'_, S>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        if attributes.metadata().name() != HOST_SPAN {
            return;
        }
        let mut name = HostName(None);
        attributes.record(&mut name);
        if let Some((name, span)) = name.0.zip(context.span(id)) {
            span.extensions_mut().replace(Host(name));
        }
    }

    /// Value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(field, _)| *field == name)?;
        Some(&found.1)
    }
}

impl Visit for Entry {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut short = Short::default();
        // Writing to it does not fail.
        let _ = write!(short, "{value:?}");
        match field.name() {
            "message" => self.message = short.done(),
            name => self.fields.push((name, short.done())),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

struct HostName(Option<String>);

impl Visit for HostName {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "name" {
            self.0 = Some(format!("{value:?}").trim_matches('"').to_string());
        }
    }
}

/// A text that is shortened while its digest covers all bytes.
#[derive(Default)]
struct Short {
    kept: String,
    length: usize,
    // Its keys are fixed, unlike those of `RandomState`.
    digest: DefaultHasher,
}

impl Short {
    fn done(mut self) -> String {
        if self.length <= VALUE_BYTES {
            return self.kept;
        }
        let mut cut = CUT_BYTES;
        while !self.kept.is_char_boundary(cut) {
            cut -= 1;
        }
        self.kept.truncate(cut);
        let digest = self.digest.finish();
        format!("{}… ({} bytes, {digest:016x})", self.kept, self.length)
    }
}

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.digest.write(text.as_bytes());
        self.length += text.len();
        if self.length <= VALUE_BYTES {
            self.kept.push_str(text);
        } else if self.kept.len() < CUT_BYTES {
            let room = text.chars().take(CUT_BYTES);
            self.kept.extend(room);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(parts: &[&str]) -> String {
        let mut short = Short::default();
        for part in parts {
            short.write_str(part).expect("it never fails");
        }
        short.done()
    }

    #[test]
    fn a_long_value_is_cut_and_tells_by_its_digest_where_another_differs() {
        let long = "ä".repeat(VALUE_BYTES);
        let first = short(&[&long, "1"]);
        assert!(first.len() < VALUE_BYTES, "{first}");
        assert_eq!(first, short(&[&long, "1"]));
        assert_ne!(first, short(&[&long, "2"]));
        assert_eq!(short(&["as", " it is"]), "as it is");
    }
}
