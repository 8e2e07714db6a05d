//! `ropewalk-day-two`: routine operations on a cluster under load, and their effect on its clients.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use ropewalk_torture::day_two::{LONGEST_PAUSE, Order, Report, Row, play};
use ropewalk_torture::machine::Machine;
use ropewalk_torture::program::{self, Folder};

/// Run routine operations and hardware faults on a cluster of real processes under load.
///
/// Default clients write and read throughout. The program prints the longest pause of the clients for each step.
#[derive(Debug, Parser)]
struct Args {
    /// Records per second of each of the four producers
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Only these steps, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
    /// Path of the ropewalk binary [default: built from this checkout]
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Path of an older binary, from which the nodes are upgraded one by one
    #[arg(long)]
    from: Option<PathBuf>,
    /// Directory for logs and data [default: a temporary directory, deleted after a success]
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

fn main() -> ExitCode {
    let args = Args::parse();
    program::run("day-two", |no_namespaces| day_two(args, no_namespaces))
}

async fn day_two(args: Args, no_namespaces: Option<String>) -> anyhow::Result<()> {
    let binary = program::binary(args.binary).await?;
    let kept = Folder::new("day-two", args.dir)?;
    let machine = Machine::probe(kept.path(), no_namespaces.as_deref()).await;
    let order = Order {
        binary,
        from: args.from,
        dir: kept.path().to_owned(),
        rate: args.rate,
        only: args.only,
    };
    let text = args.output == Format::Text;
    if text {
        println!(
            "  {:<18} {:>8} {:>14}  {:<7}",
            "step", "seconds", "longest pause", "errors"
        );
    }
    let told = |row: &Row| {
        if text {
            println!(
                "  {:<18} {:>8.1} {:>12.2} s  {:<7} {}",
                row.step,
                row.seconds,
                row.longest_pause_s,
                row.errors.len(),
                row.what
            );
        }
    };
    let report = play(&order, &machine, &told)
        .await
        .with_context(|| format!("logs and data are in {}", kept.path().display()))?;
    print(&report, args.output)?;
    if let Some(fault) = report.fault() {
        bail!("{fault}; logs are in {}", kept.path().display());
    }
    kept.done();
    Ok(())
}

fn print(report: &Report, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    let records = &report.records;
    println!(
        "  {} records acknowledged, each there once, in order for each of {} keys; {} given to the group; lost 0",
        records.acknowledged, records.keys, report.delivered
    );
    println!(
        "  no partition may acknowledge nothing for longer than {:.0} s",
        LONGEST_PAUSE.as_secs_f64()
    );
    Ok(())
}
