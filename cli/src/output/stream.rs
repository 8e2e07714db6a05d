//! Rows that arrive one by one without a known end: printed as they arrive, never collected.

use std::io::{self, StdoutLock, Write};

use serde::Serialize;

use crate::args::Format;

/// Buffer size from which rows are written without a flush.
const BUFFER_BYTES: usize = 64 << 10;

/// Prints rows as they arrive. Call [`Stream::flush`] before waiting for the next one, and [`Stream::end`]
/// after the last.
#[derive(Debug)]
pub struct Stream {
    format: Format,
    buffer: Vec<u8>,
    rows: u64,
    /// Number of bytes written to stdout.
    written: u64,
}

impl Stream {
    pub(super) fn new(format: Format) -> Stream {
        Stream {
            format,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            rows: 0,
            written: 0,
        }
    }

    /// Prints one row; for people, as `text` writes it.
    pub fn row<T: Serialize>(
        &mut self,
        row: &T,
        text: impl FnOnce(&T, &mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        match self.format {
            Format::Table => text(row, &mut self.buffer)?,
            Format::Json => {
                let before: &[u8] = if self.rows == 0 { b"[\n  " } else { b",\n  " };
                self.buffer.extend_from_slice(before);
                serde_json::to_writer(&mut self.buffer, row)?;
            }
            Format::Jsonl => {
                serde_json::to_writer(&mut self.buffer, row)?;
                self.buffer.push(b'\n');
            }
        }
        self.rows += 1;
        self.flush_if_full()
    }

    /// Prints bytes in their own format.
    pub fn text(&mut self, write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        write(&mut self.buffer)?;
        self.flush_if_full()
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= BUFFER_BYTES {
            return self.flush();
        }
        Ok(())
    }

    /// Number of bytes printed so far, including buffered ones.
    pub fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Writes the buffer to stdout.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut out: StdoutLock<'_> = io::stdout().lock();
        let written = out.write_all(&self.buffer).and_then(|()| out.flush());
        // Bytes that stdout refused were never in the pipe. If counted, they would pass for read.
        if written.is_ok() {
            self.written += self.buffer.len() as u64;
        }
        self.buffer.clear();
        written
    }

    /// Ends the rows, and closes the JSON array if there is one.
    pub fn end(&mut self) -> io::Result<()> {
        if self.format == Format::Json {
            let closing: &[u8] = if self.rows == 0 { b"[]\n" } else { b"\n]\n" };
            self.buffer.extend_from_slice(closing);
        }
        self.flush()
    }
}
