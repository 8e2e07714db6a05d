//! `ropewalk bench`: performance of the cluster under load, measured at a client.

mod consume;
mod groups;
mod latency;
mod pace;
mod produce;
mod report;
mod stamp;

use std::time::Duration;

use anyhow::bail;
use indicatif::ProgressBar;
use ropewalk_client::Client;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::report::{Report, Tally};
use super::Context;
use super::interrupt::Interrupts;
use super::topic::NoTopic;
use crate::args::BenchCommand;
use crate::output::bar;

/// Redraw interval of the progress bar.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

pub async fn run(
    context: Context,
    verb: BenchCommand,
    mut interrupts: Interrupts,
) -> anyhow::Result<()> {
    let args = match &verb {
        BenchCommand::Produce(args) | BenchCommand::Latency(args) => args,
        BenchCommand::Consume(args) => &args.bench,
    };
    let client = tokio::select! {
        client = client(&context, &args.topic) => client?,
        () = interrupts.next() => bail!("interrupted before the end of the measurement"),
    };
    let stop = stop_on_interrupt(interrupts);
    let progress = bar(args.duration.as_millis() as u64, "measuring");
    let showing = tokio::spawn(show(progress.clone()));
    let found = match &verb {
        BenchCommand::Produce(args) => produce::run(&client, args, &stop, None).await,
        BenchCommand::Consume(args) => match args.groups {
            Some(groups) => groups::run(&client, &args.bench, groups, &stop).await,
            None => consume::run(&client, &args.bench, &stop).await,
        },
        BenchCommand::Latency(args) => latency::run(&client, args, &stop).await,
    };
    showing.abort();
    progress.finish_and_clear();
    let (report, first_error) = found?;
    context.output.one(&report, Report::text)?;
    match first_error {
        Some(error) => bail!("{} records failed; first error: {error}", report.errors),
        None => Ok(()),
    }
}

/// A client of the cluster; fails if this topic does not exist.
async fn client(context: &Context, topic: &str) -> anyhow::Result<Client> {
    let client = context.client().await?;
    match client.admin().topic(topic).await? {
        Some(_) => Ok(client),
        None => bail!(NoTopic(topic.to_owned())),
    }
}

/// Ends the measurement at Ctrl-C; the results until then are printed.
fn stop_on_interrupt(mut interrupts: Interrupts) -> CancellationToken {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        interrupts.next().await;
        stopping.cancel();
    });
    stop
}

async fn show(progress: ProgressBar) {
    let begun = Instant::now();
    let ticks = progress.length().unwrap_or(0);
    loop {
        progress.set_position((begun.elapsed().as_millis() as u64).min(ticks));
        tokio::time::sleep(PROGRESS_EVERY).await;
    }
}

/// Sums up the tallies of all workers in a report, with the first error.
fn sum_up(tallies: Vec<Tally>, elapsed: Duration) -> anyhow::Result<(Report, Option<String>)> {
    let mut sum = Tally::new()?;
    for tally in tallies {
        sum.add(tally);
    }
    Ok((Report::new(&sum, elapsed), sum.first_error))
}
