//! JSON lines with the id of their node, and text lines without control characters.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::output::shown;

/// The node that writes all lines of this process; 0 until it is known.
static NODE_ID: AtomicU64 = AtomicU64::new(0);

/// Sets the node id of all further lines.
pub fn node_is(node_id: u64) {
    NODE_ID.store(node_id, Ordering::Relaxed);
}

/// Adds `node_id` at the front of the JSON object that another format writes.
#[derive(Debug)]
pub struct Numbered<F>(pub F);

impl<S, N, F> FormatEvent<S, N> for Numbered<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let node_id = NODE_ID.load(Ordering::Relaxed);
        if node_id == 0 {
            return self.0.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.0
            .format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(writer, "{{\"node_id\":{node_id},{rest}"),
            None => writer.write_str(&line),
        }
    }
}

/// Writes fields like another format, without control characters. Part of the text comes from outside, and
/// must not look like another line or control the terminal.
#[derive(Debug)]
pub struct Escaped<F>(pub F);

impl<'w, F> FormatFields<'w> for Escaped<F>
where
    F: for<'a> FormatFields<'a>,
{
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut text = String::new();
        self.0.format_fields(Writer::new(&mut text), fields)?;
        writer.write_str(&shown(text.as_bytes()))
    }
}
