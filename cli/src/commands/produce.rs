//! `ropewalk produce`: publishes the records of an input. One task reads and sends. Another waits for the
//! acknowledgements, in the order of the lines, and prints them.

use std::io;

use anyhow::{Context as _, anyhow, bail};
use futures_util::FutureExt;
use indicatif::ProgressBar;
use ropewalk_client::{Compression, PendingAck, Producer};
use serde::Serialize;
use tokio::sync::mpsc;

use super::Context;
use super::interrupt::Interrupts;
use super::records::Records;
use crate::args::{CompressionArg, Format, ProduceArgs};
use crate::logs;
use crate::output::Stream;

/// Maximum number of sent records whose acknowledgements are not printed yet.
const WAITING_RECORDS: usize = 16_384;
/// Number of records between two progress updates.
const SHOWN_EVERY: u64 = 1_000;

/// A sent record, with its line.
struct Sent {
    line: u64,
    ticket: PendingAck,
}

/// One acknowledgement.
#[derive(Debug, Serialize)]
struct Acked {
    partition: u32,
    offset: u64,
}

pub async fn run(
    context: Context,
    args: ProduceArgs,
    mut interrupts: Interrupts,
) -> anyhow::Result<()> {
    let records = Records::new(&args)?;
    let producer = tokio::select! {
        producer = producer(&context, &args) => producer?,
        () = interrupts.next() => bail!("interrupted before any record was sent"),
    };
    let progress = records.progress(context.output.format());
    let (sent, waiting) = mpsc::channel(WAITING_RECORDS);
    let reading = read(&producer, records, sent, &progress, &mut interrupts);
    let printing = print(&context, waiting, &progress);
    let (read, printed) = tokio::join!(reading, printing);
    progress.finish_and_clear();
    // The earliest record failed first, so its error is reported.
    let Printed { published, refused } = printed?;
    read.with_context(|| format!("stopped; {}", count(published, "published")))?;
    if let Some(error) = refused {
        let what = count(published, "published");
        let what =
            format!("{what}, but stdout did not accept all of their offsets; free space for it");
        return Err(anyhow::Error::new(error).context(what));
    }
    if context.output.format() == Format::Table {
        logs::say(&format!("published {published} records to {}", args.topic));
    }
    Ok(())
}

async fn producer(context: &Context, args: &ProduceArgs) -> anyhow::Result<Producer> {
    let client = context.client().await?;
    let producer = client
        .producer(&args.topic)
        .compression(compression(args.compression))
        .delivery_timeout(context.global.timeout);
    Ok(producer.build().await?)
}

/// Phrase for a number of records and their outcome.
fn count(records: u64, done: &str) -> String {
    match records {
        0 => format!("no record {done}"),
        1 => format!("1 record {done}"),
        _ => format!("{records} records {done}"),
    }
}

/// Sends all records, until the input ends, a line is invalid, or the printing task has ended.
async fn read(
    producer: &Producer,
    mut records: Records<'_>,
    sent: mpsc::Sender<Sent>,
    progress: &ProgressBar,
    interrupts: &mut Interrupts,
) -> anyhow::Result<()> {
    loop {
        let next = tokio::select! {
            next = records.next() => next?,
            () = interrupts.next() => {
                let line = records.line();
                return Err(anyhow!("interrupted; the lines after {line} were not read"));
            }
            // A record failed; sending later records would break the order of the lines.
            () = sent.closed() => return Ok(()),
        };
        let Some(record) = next else { return Ok(()) };
        let line = records.line();
        progress.set_position(records.bytes());
        // Room for the acknowledgement is reserved first, so that no record is sent and then forgotten.
        let sending = async {
            let room = sent.reserve().await.ok()?;
            Some((room, producer.send(record).await))
        };
        let sending = tokio::select! {
            both = sending => both,
            () = interrupts.next() => {
                let line = place(line);
                return Err(anyhow!("interrupted; {line} and later lines were not sent"));
            }
        };
        let Some((room, ticket)) = sending else {
            return Ok(());
        };
        let ticket = ticket.with_context(|| place(line))?;
        room.send(Sent { line, ticket });
    }
}

/// Name of an input line; 0 is the command line.
fn place(line: u64) -> String {
    match line {
        0 => "the record".into(),
        line => format!("line {line}"),
    }
}

/// Result of the printing task.
struct Printed {
    published: u64,
    /// First failure to print an acknowledgement, unless stdout has no reader.
    refused: Option<io::Error>,
}

/// Prints each acknowledgement, in the order of the lines.
async fn print(
    context: &Context,
    mut waiting: mpsc::Receiver<Sent>,
    progress: &ProgressBar,
) -> anyhow::Result<Printed> {
    let mut out = Printer::new(context);
    let mut published = 0;
    while let Some(Sent { line, mut ticket }) = next(&mut waiting, &mut out).await {
        let receipt = match (&mut ticket).now_or_never() {
            Some(receipt) => receipt,
            None => {
                out.flush();
                ticket.await
            }
        };
        let receipt = match receipt {
            Ok(receipt) => receipt,
            Err(error) => {
                out.end();
                let before = count(published, "published before it");
                let failed = format!("{} failed; {before}", place(line));
                return Err(anyhow::Error::new(error).context(failed));
            }
        };
        out.print(Acked {
            partition: receipt.partition,
            offset: receipt.offset,
        });
        published += 1;
        if published.is_multiple_of(SHOWN_EVERY) {
            progress.set_prefix(count(published, "published"));
        }
    }
    out.end();
    let refused = out.refused;
    Ok(Printed { published, refused })
}

/// The next record to wait for. Flushes the output before it waits.
async fn next(waiting: &mut mpsc::Receiver<Sent>, out: &mut Printer) -> Option<Sent> {
    match waiting.try_recv() {
        Ok(sent) => Some(sent),
        Err(_) => {
            out.flush();
            waiting.recv().await
        }
    }
}

/// Prints acknowledgements if requested. Once stdout has no reader or fails, it stops printing. The records
/// have priority, and are still sent.
struct Printer {
    stream: Option<Stream>,
    refused: Option<io::Error>,
}

impl Printer {
    fn new(context: &Context) -> Printer {
        let wanted = context.output.format() != Format::Table;
        Printer {
            stream: wanted.then(|| context.output.stream()),
            refused: None,
        }
    }

    fn print(&mut self, acked: Acked) {
        self.tell(|stream| stream.row(&acked, |_, _| Ok(())));
    }

    fn flush(&mut self) {
        self.tell(Stream::flush);
    }

    fn end(&mut self) {
        self.tell(Stream::end);
    }

    fn tell(&mut self, what: impl FnOnce(&mut Stream) -> io::Result<()>) {
        let Some(Err(error)) = self.stream.as_mut().map(what) else {
            return;
        };
        self.stream = None;
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.refused = Some(error);
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
