//! Results on stdout: columns for people, JSON for programs. Nothing else in the command prints there.

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

/// Something that prints as a line of a table, or as a JSON object.
pub trait Row: Serialize {
    /// The headings.
    const COLUMNS: &'static [&'static str];
    /// One text a heading.
    fn cells(&self) -> Vec<String>;
}

/// Where results go, and in which shape.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
}

impl Output {
    /// What was asked for, or what suits where stdout leads.
    pub fn new(global: &Global) -> Output {
        let suited = || match io::stdout().is_terminal() {
            true => Format::Table,
            false => Format::Jsonl,
        };
        Output {
            format: global.output.unwrap_or_else(suited),
        }
    }

    /// The shape results have.
    pub fn format(self) -> Format {
        self.format
    }

    /// Prints rows that are all there. Without a reader of stdout they are dropped.
    pub fn rows<R: Row>(self, rows: &[R]) -> io::Result<()> {
        unless_closed(self.print_rows(rows))
    }

    /// Prints one thing, for people as `text` says it. Without a reader of stdout it is dropped.
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

    /// Rows that come one by one.
    pub fn stream(self) -> Stream {
        Stream::new(self.format)
    }
}

/// A result that nobody reads is no failure: the exit code is that of the work.
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
