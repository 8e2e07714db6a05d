//! Measures consumer groups on three real nodes, and checks their guarantees. Measured are the time of a
//! rebalance, the silence of keys while a topic expands, the throughput of filters and the error of the reported
//! lag. Five groups must each receive every record. Exits with 0 only if nothing was lost or out of order.

mod crowd;
mod filter;
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
    /// Groups that there are at the same time
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    groups: u32,
    /// Only these parts, separated by commas: replay, growth, settle, filter, crowd [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
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
    let wanted = |part: &str| args.only.is_empty() || args.only.iter().any(|only| only == part);
    if wanted("replay") {
        replay::run(&stage, args.records).await?;
    }
    if wanted("growth") {
        growth::run(&stage, args.rounds).await?;
    }
    if wanted("settle") {
        settle::run(&mut stage, args.rounds).await?;
    }
    if wanted("filter") {
        filter::run(&stage, args.rounds, args.records).await?;
    }
    if wanted("crowd") {
        crowd::run(&mut stage, args.groups).await?;
    }
    stage.stop().await
}
