//! Results on stdout: columns for people, JSON for programs. No other part of the command prints there.

mod escape;
mod outlet;
mod progress;
mod stream;
mod table;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

pub use escape::{shown, shown_lines};
pub use outlet::Outlet;
pub use progress::{bar, bytes_bar, spinner};
pub use stream::Stream;
#[cfg(test)]
pub use table::columns_within;
pub use table::{NONE, about, bytes, columns, list, millis};

use crate::args::{Format, Global};

/// A result that prints as a line of a table, or as a JSON object.
pub trait Row: Serialize {
    /// Column headings.
    const COLUMNS: &'static [&'static str];
    /// Cell texts, one per heading.
    fn cells(&self) -> Vec<String>;
}

/// Output in the chosen format.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
}

impl Output {
    /// Creates an output in the requested format, or in the default for the kind of stdout.
    pub fn new(global: &Global) -> Output {
        let suited = || match io::stdout().is_terminal() {
            true => Format::Table,
            false => Format::Jsonl,
        };
        Output {
            format: global.output.unwrap_or_else(suited),
        }
    }

    /// Format of the results.
    pub fn format(self) -> Format {
        self.format
    }

    /// Prints a complete list of rows. Drops them if stdout has no reader.
    pub fn rows<R: Row>(self, rows: &[R]) -> io::Result<()> {
        unless_closed(self.print_rows(rows))
    }

    /// Prints one value; for people, as `text` formats it. Drops it if stdout has no reader.
    pub fn one<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        unless_closed(self.print_one(value, text))
    }

    fn print_rows<R: Row>(self, rows: &[R]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Table => {
                let cells = rows.iter().map(Row::cells).collect::<Vec<_>>();
                writeln!(out, "{}", columns(R::COLUMNS, &cells))?;
            }
            Format::Json => json(&mut out, &rows)?,
            Format::Jsonl => rows.iter().try_for_each(|row| jsonl(&mut out, row))?,
        }
        out.flush()
    }

    fn print_one<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Table => writeln!(out, "{}", shown_lines(&text(value)))?,
            Format::Json => json(&mut out, value)?,
            Format::Jsonl => jsonl(&mut out, value)?,
        }
        out.flush()
    }

    /// A stream for rows that arrive one by one.
    pub fn stream(self) -> Stream {
        Stream::new(self.format)
    }
}

/// Ignores a closed stdout: the exit code depends on the work alone.
fn unless_closed(printed: io::Result<()>) -> io::Result<()> {
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Prints the line that says a server is ready to be used.
pub fn ready<T: Serialize>(what: &T) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "ready ")?;
    jsonl(&mut out, what)?;
    out.flush()
}

fn json<T: Serialize>(out: &mut impl Write, value: &T) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

fn jsonl<T: Serialize>(out: &mut impl Write, value: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_nobody_reads_does_not_end_the_command() {
        assert!(unless_closed(Ok(())).is_ok());
        assert!(unless_closed(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert!(unless_closed(Err(io::ErrorKind::StorageFull.into())).is_err());
    }
}
