//! `ropewalk produce`: one record a line. One task reads and sends, one waits for the
//! acknowledgements in the order of the lines and prints them.

use std::io;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use futures_util::FutureExt;
use ropewalk_client::{Compression, Producer, Record, Ticket};
use serde::Serialize;
use tokio::io::BufReader;
use tokio::signal::ctrl_c;
use tokio::sync::mpsc;

use super::Context;
use super::input::{Lines, split};
use crate::args::{CompressionArg, Format, ProduceArgs};
use crate::output::Stream;

/// Records sent whose acknowledgement is not printed yet.
const WAITING_RECORDS: usize = 16_384;
/// What is read from stdin at a time.
const READ_BYTES: usize = 256 << 10;

/// A record sent, and the line it came from.
struct Sent {
    line: u64,
    ticket: Ticket,
}

/// One acknowledgement.
#[derive(Debug, Serialize)]
struct Acked {
    partition: u32,
    offset: u64,
}

pub async fn run(context: Context, args: ProduceArgs) -> anyhow::Result<()> {
    let client = context.client().await?;
    let producer = client
        .producer(&args.topic)
        .compression(compression(args.compression))
        .delivery_timeout(context.global.timeout)
        .build()
        .await?;
    let (sent, waiting) = mpsc::channel(WAITING_RECORDS);
    let reading = read(&producer, &args, sent);
    let printing = print(&context, waiting);
    let (read, printed) = tokio::join!(reading, printing);
    // What was sent first failed first.
    let published = printed?;
    read.with_context(|| format!("stopped after {published} records, which are published"))?;
    if context.output.format() == Format::Table {
        eprintln!("published {published} records to {}", args.topic);
    }
    Ok(())
}

/// Sends every line, until the input ends, or a line is no record, or nobody waits for more.
async fn read(
    producer: &Producer,
    args: &ProduceArgs,
    sent: mpsc::Sender<Sent>,
) -> anyhow::Result<()> {
    let mut lines = Lines::new(BufReader::with_capacity(READ_BYTES, tokio::io::stdin()));
    let interrupted = ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let next = tokio::select! {
            next = lines.next() => next?,
            Ok(()) = &mut interrupted => {
                return Err(anyhow!("interrupted; the lines after {} were not read", lines.number()));
            }
            // A record failed; the order of what follows would not be that of the lines.
            () = sent.closed() => return Ok(()),
        };
        let Some(line) = next else { return Ok(()) };
        let number = lines.number();
        let ticket = producer.send(record(args, line, number)?).await;
        let ticket = ticket.with_context(|| format!("line {number}"))?;
        if sent
            .send(Sent {
                line: number,
                ticket,
            })
            .await
            .is_err()
        {
            return Ok(());
        }
    }
}

fn record(args: &ProduceArgs, line: Bytes, number: u64) -> anyhow::Result<Record> {
    let (key, value) = split(line, args.key_separator.as_deref(), number)?;
    let mut record = Record::new().value(value);
    if let Some(key) = key {
        record = record.key(key);
    }
    for header in &args.headers {
        record = record.header(header.key.clone(), header.value.clone());
    }
    if let Some(partition) = args.partition {
        record = record.partition(partition);
    }
    Ok(record)
}

/// Prints each acknowledgement in the order of the lines. Returns how many there were.
async fn print(context: &Context, mut waiting: mpsc::Receiver<Sent>) -> anyhow::Result<u64> {
    let mut out = Printer::new(context);
    let mut published = 0;
    while let Some(Sent { line, mut ticket }) = next(&mut waiting, &mut out).await? {
        let receipt = match (&mut ticket).now_or_never() {
            Some(receipt) => receipt,
            None => {
                out.flush()?;
                ticket.await
            }
        };
        let receipt = match receipt {
            Ok(receipt) => receipt,
            Err(error) => {
                out.end()?;
                let told = format!("line {line}; the {published} lines before it are published");
                return Err(anyhow::Error::new(error).context(told));
            }
        };
        out.print(Acked {
            partition: receipt.partition,
            offset: receipt.offset,
        })?;
        published += 1;
    }
    out.end()?;
    Ok(published)
}

/// The next record to wait for. Whoever reads the output sees what there is before it waits.
async fn next(waiting: &mut mpsc::Receiver<Sent>, out: &mut Printer) -> io::Result<Option<Sent>> {
    match waiting.try_recv() {
        Ok(sent) => Ok(Some(sent)),
        Err(_) => {
            out.flush()?;
            Ok(waiting.recv().await)
        }
    }
}

/// Prints acknowledgements where they were asked for. Once nobody reads them it prints no more:
/// the records are what counts, and they still go out.
struct Printer {
    stream: Option<Stream>,
}

impl Printer {
    fn new(context: &Context) -> Printer {
        let wanted = context.output.format() != Format::Table;
        Printer {
            stream: wanted.then(|| context.output.stream()),
        }
    }

    fn print(&mut self, acked: Acked) -> io::Result<()> {
        self.tell(|stream| stream.row(&acked, |_, _| Ok(())))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tell(Stream::flush)
    }

    fn end(&mut self) -> io::Result<()> {
        self.tell(Stream::end)
    }

    fn tell(&mut self, what: impl FnOnce(&mut Stream) -> io::Result<()>) -> io::Result<()> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        match what(stream) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.stream = None;
                Ok(())
            }
            done => done,
        }
    }
}

fn compression(wanted: CompressionArg) -> Compression {
    match wanted {
        CompressionArg::None => Compression::None,
        CompressionArg::Lz4 => Compression::Lz4,
        CompressionArg::Zstd => Compression::Zstd,
        CompressionArg::Snappy => Compression::Snappy,
        CompressionArg::Gzip => Compression::Gzip,
    }
}
