//! Figures of consumer groups on three real nodes, and whether what must hold did: how fast a group
//! settles, how long keys wait while a topic grows, whether five groups get all there is, and how far
//! off the lag is that the cluster tells. Exits with 0 only if nothing was lost or out of order.

mod growth;
mod order;
mod replay;
mod settle;
mod stage;

use std::process::ExitCode;

use clap::Parser;

use crate::stage::Stage;

/// Measures consumer groups on three nodes of their own.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds of everything that is measured more than once; medians are of so many
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// Records that five groups read from the beginning
    #[arg(long, default_value_t = 336_776)]
    records: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the figures could not be had: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let mut stage = Stage::start().await?;
    replay::run(&stage, args.records).await?;
    growth::run(&stage, args.rounds).await?;
    settle::run(&mut stage, args.rounds).await?;
    stage.stop().await
}
