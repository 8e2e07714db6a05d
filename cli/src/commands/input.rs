//! Records from lines: one record per line, as raw bytes. A line may contain anything but a line feed; a
//! carriage return is part of the record.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Maximum length of a line. It exceeds the largest record of any topic, and bounds the memory for a file
/// without line ends.
pub const LINE_BYTES: usize = 16 << 20;

/// Failure of the input.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The line exceeds the record size of any topic.
    #[error("line {number} is longer than {longest} bytes, the limit of any record; split it")]
    LineTooLong { number: u64, longest: usize },
    /// The line lacks its key separator.
    #[error(
        "line {number} has no key separator {separator:?}; write KEY{separator}VALUE, or omit --key-separator"
    )]
    NoSeparator { number: u64, separator: String },
    /// Reading failed.
    #[error("reading line {number} failed: {source}")]
    Read { number: u64, source: io::Error },
}

/// Lines of an input, with their numbers.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    longest: usize,
    number: u64,
    bytes: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Creates a reader of lines with at most `longest` bytes.
    pub fn new(input: R, longest: usize) -> Lines<R> {
        Lines {
            input,
            longest,
            number: 0,
            bytes: 0,
        }
    }

    /// Number of bytes in the lines read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of the last line read, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next line without its line feed; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, InputError> {
        let number = self.number + 1;
        let mut line = Vec::new();
        loop {
            let chunk = self.input.fill_buf().await;
            let chunk = chunk.map_err(|source| InputError::Read { number, source })?;
            if chunk.is_empty() && line.is_empty() {
                return Ok(None);
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(chunk.len());
            if line.len() + taken > self.longest {
                let longest = self.longest;
                return Err(InputError::LineTooLong { number, longest });
            }
            line.extend_from_slice(chunk.get(..taken).unwrap_or_default());
            let at_the_end = chunk.is_empty() || end.is_some();
            let consumed = taken + usize::from(end.is_some());
            self.input.consume(consumed);
            self.bytes += consumed as u64;
            if at_the_end {
                self.number = number;
                return Ok(Some(Bytes::from(line)));
            }
        }
    }
}

/// Splits a line into key and value. Both may be empty; the key is absent only if no separator is set.
pub fn split(
    line: Bytes,
    separator: Option<&str>,
    number: u64,
) -> Result<(Option<Bytes>, Bytes), InputError> {
    let Some(separator) = separator else {
        return Ok((None, line));
    };
    let found = line
        .windows(separator.len())
        .position(|window| window == separator.as_bytes());
    match found {
        Some(at) => Ok((Some(line.slice(..at)), line.slice(at + separator.len()..))),
        None => Err(InputError::NoSeparator {
            number,
            separator: separator.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8]) -> Vec<Vec<u8>> {
        // The buffer is tiny, so that lines cross its ends.
        let reader = tokio::io::BufReader::with_capacity(3, input);
        let mut lines = Lines::new(reader, LINE_BYTES);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(line.to_vec());
        }
        assert_eq!(lines.number(), found.len() as u64);
        found
    }

    #[tokio::test]
    async fn every_line_is_a_record_as_it_stands() {
        assert_eq!(lines(b"").await, Vec::<Vec<u8>>::new());
        assert_eq!(lines(b"a\n").await, [b"a".to_vec()]);
        assert_eq!(lines(b"a").await, [b"a".to_vec()]);
        assert_eq!(
            lines(b"\n\nabcdef\n").await,
            [b"".to_vec(), b"".to_vec(), b"abcdef".to_vec()]
        );
        assert_eq!(lines(b"\xff\xfe\r\n").await, [b"\xff\xfe\r".to_vec()]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused_by_its_number() {
        let input = [b"ok\n".to_vec(), vec![b'x'; LINE_BYTES + 1]].concat();
        let mut lines = Lines::new(input.as_slice(), LINE_BYTES);
        assert!(lines.next().await.unwrap().is_some());
        let error = lines.next().await.unwrap_err();
        assert!(error.to_string().starts_with("line 2 is longer"), "{error}");
    }

    #[test]
    fn the_first_separator_splits_key_from_value() {
        let split = |line: &'static [u8]| split(Bytes::from_static(line), Some("::"), 7);
        let (key, value) = split(b"k::v::w").unwrap();
        assert_eq!(
            (key.as_deref(), &value[..]),
            (Some(&b"k"[..]), &b"v::w"[..])
        );
        let (key, value) = split(b"::").unwrap();
        assert_eq!((key.as_deref(), &value[..]), (Some(&b""[..]), &b""[..]));
        let error = split(b"no key").unwrap_err().to_string();
        assert!(
            error.starts_with("line 7 has no key separator \"::\""),
            "{error}"
        );
    }

    #[test]
    fn without_a_separator_a_line_is_a_value() {
        let (key, value) = split(Bytes::from_static(b"k,v"), None, 1).unwrap();
        assert_eq!((key, &value[..]), (None, &b"k,v"[..]));
    }
}
