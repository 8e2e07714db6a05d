//! Demo on a three-node cluster of real processes. It kills the node that leads most partitions, half-way through
//! a publish, and checks that no record is lost. Exits with 0 only if the check holds.

mod account;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Publishes the flights that left New York in January 2013 to three nodes, kills one with SIGKILL on
/// the way, reads everything back and checks it.
#[derive(Debug, Parser)]
struct Args {
    /// The ropewalk binary [default: built from this checkout]
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Records a second
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let binary = match args.binary {
        Some(binary) => binary,
        None => ropewalk_demo::build::command().await?,
    };
    story::tell(&binary, args.rate).await
}
