//! Lines of JSON that say which node they are from, and lines of text that stay one line each.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::output::shown;

/// The node that all lines of this process are from; 0: it does not know yet.
static NODE_ID: AtomicU64 = AtomicU64::new(0);

/// Has all lines from now on say that they are from this node.
pub fn node_is(node_id: u64) {
    NODE_ID.store(node_id, Ordering::Relaxed);
}

/// Puts `node_id` in front of what another format writes, which is to be an object.
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

/// Writes what another format writes of fields without control characters: part of it comes from outside, and
/// must not look like another line, nor speak to the terminal.
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
