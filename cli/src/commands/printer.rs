//! Printer of records, in the requested format.

use std::io::{self, IsTerminal};

use ropewalk_client::ConsumedRecord;

use super::Context;
use super::record::RecordRow;
use crate::args::ConsumeArgs;
use crate::exit::usage;
use crate::output::{Stream, shown_lines};
use crate::parse::RecordFormat;

/// Prints records. Call [`RecordPrinter::flush`] before waiting for the next one, and
/// [`RecordPrinter::end`] after the last.
#[derive(Debug)]
pub struct RecordPrinter {
    stream: Stream,
    format: Option<RecordFormat>,
    /// The topic is printed with each record if there may be several.
    with_topic: bool,
    /// Stdout is a terminal, which the bytes of records must not control.
    terminal: bool,
}

impl RecordPrinter {
    pub fn new(context: &Context, args: &ConsumeArgs) -> anyhow::Result<RecordPrinter> {
        if args.format.is_some() && context.global.output.is_some() {
            return Err(usage(
                "--format and --output exclude each other; pass one of them",
            ));
        }
        Ok(RecordPrinter {
            stream: context.output.stream(),
            format: args.format.clone(),
            with_topic: args.pattern.is_some() || args.topics.len() > 1,
            terminal: io::stdout().is_terminal(),
        })
    }

    /// Prints one record.
    pub fn print(&mut self, topic: &str, record: &ConsumedRecord) -> io::Result<()> {
        let row = RecordRow::new(topic, record);
        match &self.format {
            None => self
                .stream
                .row(&row, |row, out| row.write_line(self.with_topic, out)),
            Some(format) if self.terminal => self.stream.text(|out| {
                let mut line = Vec::new();
                row.write_format(format, &mut line)?;
                out.extend_from_slice(shown_lines(&String::from_utf8_lossy(&line)).as_bytes());
                Ok(())
            }),
            Some(format) => self.stream.text(|out| row.write_format(format, out)),
        }
    }

    /// Number of bytes printed so far.
    pub fn bytes(&self) -> u64 {
        self.stream.bytes()
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }

    pub fn end(&mut self) -> io::Result<()> {
        match self.format {
            None => self.stream.end(),
            Some(_) => self.stream.flush(),
        }
    }
}
