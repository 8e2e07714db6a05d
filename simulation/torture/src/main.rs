//! `ropewalk-torture`: see the library.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use rand::TryRngCore;
use rand::rngs::OsRng;

use ropewalk_demo::build;
use ropewalk_torture::kind::Kind;
use ropewalk_torture::machine::{Machine, namespaces};
use ropewalk_torture::story::{Order, Report, tell};

/// Runs a cluster of real processes, breaks what can be broken, and checks that nothing was lost.
#[derive(Debug, Parser)]
struct Args {
    /// For how many minutes faults come
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=9))]
    nodes: u8,
    /// Which faults, when and to whom [default: a new seed]
    #[arg(long)]
    seed: Option<u64>,
    /// Records a second, of each of four producers
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Only these kinds of faults, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_parser = Kind::named)]
    only: Vec<Kind>,
    /// All but these kinds
    #[arg(long, value_delimiter = ',', value_parser = Kind::named)]
    without: Vec<Kind>,
    /// How the outcome is printed
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
    /// The ropewalk binary [default: built from this checkout]
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where to keep logs and data [default: a folder that goes if all is well]
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
    match namespaces() {
        // The same program again, where mounts, networks and processes are its own.
        Ok(Some(mut inside)) => match inside.status() {
            Ok(status) if status.success() => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(error) => fail(&anyhow::Error::new(error).context("running unshare")),
        },
        Ok(None) => run(args, None),
        Err(why) => run(args, Some(&why)),
    }
}

fn run(args: Args, no_namespaces: Option<&str>) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().context("starting tokio");
    match runtime.and_then(|runtime| runtime.block_on(torture(args, no_namespaces))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("torture: {error:#}");
    ExitCode::FAILURE
}

async fn torture(args: Args, no_namespaces: Option<&str>) -> anyhow::Result<()> {
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => build::command().await?,
    };
    let seed = match args.seed {
        Some(seed) => seed,
        None => OsRng.try_next_u64().context("no randomness")? >> 32,
    };
    let kept = match &args.dir {
        Some(dir) => dir.clone(),
        None => tempfile::Builder::new()
            .prefix("ropewalk-torture-")
            .tempdir()?
            .keep(),
    };
    std::fs::create_dir_all(&kept)?;
    let machine = Machine::probe(&kept, no_namespaces).await;
    let wanted = |kind: &Kind| {
        (args.only.is_empty() || args.only.contains(kind)) && !args.without.contains(kind)
    };
    let order = Order {
        binary,
        dir: kept.clone(),
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
            kept.display()
        )
    })?;
    print(&report, args.output)?;
    if args.dir.is_none() {
        // What is mounted below goes with the namespace.
        let _ = std::fs::remove_dir_all(&kept);
    }
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
