//! `ropewalk-torture`: see the library.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use rand::TryRngCore;
use rand::rngs::OsRng;
use ropewalk_torture::fault_kind::Kind;
use ropewalk_torture::machine::Machine;
use ropewalk_torture::program::{self, Folder};
use ropewalk_torture::story::{Order, Report, tell};

/// Run a cluster of real processes, inject faults, and check that no record is lost.
#[derive(Debug, Parser)]
struct Args {
    /// Minutes with faults
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// Number of nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=9))]
    nodes: u8,
    /// Seed for the kinds, times and targets of the faults [default: a new seed]
    #[arg(long)]
    seed: Option<u64>,
    /// Records per second of each of the four producers
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Only these kinds of faults, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_parser = Kind::named)]
    only: Vec<Kind>,
    /// All but these kinds
    #[arg(long, value_delimiter = ',', value_parser = Kind::named)]
    without: Vec<Kind>,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
    /// Path of the ropewalk binary [default: built from this checkout]
    #[arg(long)]
    binary: Option<PathBuf>,
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
    program::run("torture", |no_namespaces| torture(args, no_namespaces))
}

async fn torture(args: Args, no_namespaces: Option<String>) -> anyhow::Result<()> {
    let binary = program::binary(args.binary.clone()).await?;
    let seed = match args.seed {
        Some(seed) => seed,
        None => OsRng.try_next_u64().context("no randomness")? >> 32,
    };
    let kept = Folder::new("torture", args.dir.clone())?;
    let machine = Machine::probe(kept.path(), no_namespaces.as_deref()).await;
    let wanted = |kind: &Kind| {
        (args.only.is_empty() || args.only.contains(kind)) && !args.without.contains(kind)
    };
    let order = Order {
        binary,
        dir: kept.path().to_owned(),
        time: Duration::from_secs(args.minutes * 60),
        nodes: usize::from(args.nodes),
        seed,
        rate: args.rate,
        kinds: Kind::ALL.into_iter().filter(wanted).collect(),
    };
    let say = |step: &str, what: String| eprintln!("  {step:<9}  {what}");
    let report = tell(&order, &machine, &say).await.with_context(|| {
        format!(
            "seed {seed} (again: ropewalk-torture --seed {seed} --minutes {} --nodes {}; logs and data are in {})",
            args.minutes,
            args.nodes,
            kept.path().display()
        )
    })?;
    print(&report, args.output)?;
    kept.done();
    Ok(())
}

fn print(report: &Report, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    let fired: Vec<String> = report
        .fired
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    let records = &report.records;
    println!("  faults     {}", fired.join(", "));
    println!(
        "  records    {} acknowledged and there exactly once, in order for each of {} keys; {} of unknown outcome are there, {} are not; {} were refused",
        records.acknowledged,
        records.keys,
        records.unknown_there,
        records.unknown_lost,
        records.refused
    );
    println!(
        "  readers    saw all of it, in {} lives; {} times a node found damage and began anew",
        report.reader_lives, report.replaced
    );
    println!(
        "  lost       0 (seed {}, {} s)",
        report.seed, report.seconds
    );
    Ok(())
}
