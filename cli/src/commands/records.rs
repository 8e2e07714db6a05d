//! Input records of `produce`: lines of stdin in one of two formats, or one record on the command line.

use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::fd::AsFd;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use indicatif::ProgressBar;
use ropewalk_client::Record;
use tokio::io::{AsyncBufRead, BufReader, Stdin};

use super::given::Given;
use super::input::{InputError, LINE_BYTES, Lines, split};
use crate::args::{Format, InputFormat, ProduceArgs};
use crate::exit::usage;
use crate::logs;
use crate::output::{bytes_bar, spinner};

/// Size of one read from stdin.
const READ_BYTES: usize = 256 << 10;
/// Maximum length of a JSON line: one byte of a record takes up to six there, as in `\u0000`.
const JSONL_BYTES: usize = 6 * LINE_BYTES;
/// Byte order mark that some editors write at the start of UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// Notice about lines with Windows line ends. The carriage returns may be intended, so they stay.
const CARRIAGE_RETURN: &str = "ropewalk: line 1 ends in a carriage return, which becomes part of the record; to \
                               remove it, use tr -d '\\r'";

/// Records, one after another.
#[derive(Debug)]
pub struct Records<'a> {
    args: &'a ProduceArgs,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Stdin(Lines<BufReader<Stdin>>),
    One(Option<Record>),
}

impl<'a> Records<'a> {
    /// Creates the input that these flags name; fails if they contradict each other.
    pub fn new(args: &'a ProduceArgs) -> anyhow::Result<Records<'a>> {
        let jsonl = args.input == InputFormat::Jsonl;
        let one = args.value.is_some() || args.tombstone;
        let wrong = match () {
            () if one && args.key_separator.is_some() => {
                "--key-separator applies to lines of stdin; omit it with --value and --tombstone"
            }
            () if one && jsonl => {
                "--input jsonl applies to lines of stdin; omit it with --value and --tombstone"
            }
            () if jsonl && args.key_separator.is_some() => {
                "--key-separator applies to --input lines; omit it, since a JSON line contains its key"
            }
            () if args.keep_partitions && !jsonl => {
                "--keep-partitions needs --input jsonl; other lines contain no partition"
            }
            () => {
                let source = match one {
                    true => Source::One(Some(single(args))),
                    false => Source::Stdin(lines(jsonl)),
                };
                return Ok(Records { args, source });
            }
        };
        Err(usage(wrong))
    }

    /// The next record; none at the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<Record>> {
        let record = match &mut self.source {
            Source::One(record) => record.take(),
            Source::Stdin(lines) => match next_line(self.args.input, lines).await? {
                None => None,
                Some(line) => Some(of_line(self.args, line, lines.number())?),
            },
        };
        Ok(record.map(|record| with_flags(record, self.args)))
    }

    /// Number of the last line read, from 1; 0 for the command line.
    pub fn line(&self) -> u64 {
        match &self.source {
            Source::Stdin(lines) => lines.number(),
            Source::One(_) => 0,
        }
    }

    /// Number of bytes in the lines read.
    pub fn bytes(&self) -> u64 {
        match &self.source {
            Source::Stdin(lines) => lines.bytes(),
            Source::One(_) => 0,
        }
    }

    /// Progress bar, unless the user types the records or acknowledgements go to the same terminal.
    pub fn progress(&self, format: Format) -> ProgressBar {
        let printed = format != Format::Table && stdout().is_terminal();
        let typed = stdin().is_terminal() || matches!(self.source, Source::One(_));
        if printed || typed || !stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        match file_bytes() {
            Some(length) => bytes_bar(length, "publishing"),
            None => spinner("publishing"),
        }
    }
}

/// Length of the file that is stdin, if it is one.
fn file_bytes() -> Option<u64> {
    let stdin = stdin().as_fd().try_clone_to_owned().ok()?;
    let metadata = std::fs::File::from(stdin).metadata().ok()?;
    metadata.is_file().then_some(metadata.len())
}

/// The next line that contains a record; none at the end.
async fn next_line<R: AsyncBufRead + Unpin>(
    format: InputFormat,
    lines: &mut Lines<R>,
) -> Result<Option<Bytes>, InputError> {
    while let Some(line) = lines.next().await? {
        let is_first = lines.number() == 1;
        if format == InputFormat::Lines {
            if is_first && line.ends_with(b"\r") {
                logs::say(CARRIAGE_RETURN);
            }
            return Ok(Some(line));
        }
        let line = match line.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) if is_first => line.slice_ref(rest),
            _ => line,
        };
        if !line.trim_ascii().is_empty() {
            return Ok(Some(line));
        }
    }
    Ok(None)
}

fn lines(jsonl: bool) -> Lines<BufReader<Stdin>> {
    let longest = if jsonl { JSONL_BYTES } else { LINE_BYTES };
    let stdin = BufReader::with_capacity(READ_BYTES, tokio::io::stdin());
    Lines::new(stdin, longest)
}

/// The record from `--key`, and `--value` or `--tombstone`.
fn single(args: &ProduceArgs) -> Record {
    let mut record = Record::new();
    if let Some(key) = &args.key {
        record = record.key(key.clone());
    }
    match &args.value {
        Some(value) => record.value(value.clone()),
        None => record,
    }
}

fn of_line(args: &ProduceArgs, line: Bytes, number: u64) -> anyhow::Result<Record> {
    if args.input == InputFormat::Jsonl {
        return of_jsonl(args, &line, number);
    }
    let (key, value) = split(line, args.key_separator.as_deref(), number)?;
    let record = Record::new().value(value);
    Ok(match key {
        Some(key) => record.key(key),
        None => record,
    })
}

fn of_jsonl(args: &ProduceArgs, line: &[u8], number: u64) -> anyhow::Result<Record> {
    let given = Given::parse(line).with_context(|| {
        format!("line {number} is not a record in the format of `ropewalk consume -o jsonl`")
    })?;
    let partition = given.partition;
    let record = given.record();
    match (args.keep_partitions, partition) {
        (false, _) => Ok(record),
        (true, Some(partition)) => Ok(record.partition(partition)),
        (true, None) => Err(anyhow!(
            "line {number} has no partition; omit --keep-partitions to publish by key"
        )),
    }
}

/// Adds the headers and the partition that flags set for every record.
fn with_flags(mut record: Record, args: &ProduceArgs) -> Record {
    for header in &args.headers {
        record = record.header(header.key.clone(), header.value.clone());
    }
    match args.partition {
        Some(partition) => record.partition(partition),
        None => record,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(format: InputFormat, input: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut lines = Lines::new(input, LINE_BYTES);
        let mut found = Vec::new();
        while let Some(line) = next_line(format, &mut lines).await.unwrap() {
            found.push((lines.number(), line.to_vec()));
        }
        found
    }

    #[tokio::test]
    async fn jsonl_goes_without_its_byte_order_mark_and_empty_lines() {
        let input = b"\xef\xbb\xbf{}\r\n\n \t\r\n\xef\xbb\xbf{}\n\n";
        let expected = [(1, b"{}\r".to_vec()), (4, b"\xef\xbb\xbf{}".to_vec())];
        assert_eq!(found(InputFormat::Jsonl, input).await, expected);
        let marked = found(InputFormat::Jsonl, b"\xef\xbb\xbf\n{}").await;
        assert_eq!(marked, [(2, b"{}".to_vec())]);
    }

    #[tokio::test]
    async fn lines_keep_every_byte() {
        let input = b"\xef\xbb\xbfa\r\n\nb";
        let expected = [
            (1, b"\xef\xbb\xbfa\r".to_vec()),
            (2, b"".to_vec()),
            (3, b"b".to_vec()),
        ];
        assert_eq!(found(InputFormat::Lines, input).await, expected);
    }
}
