//! `ropewalk-sim`: runs seeds, each in a process of its own, and reports their outcomes.

mod commands;
mod interpose;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tikv_jemallocator::Jemalloc;

/// The same allocator as the product's.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

#[derive(Debug, Parser)]
#[command(
    name = "ropewalk-sim",
    about = "Simulate whole clusters in virtual time, from a seed"
)]
struct Args {
    #[command(subcommand)]
    verb: SimulatorCommand,
}

#[derive(Debug, Subcommand)]
enum SimulatorCommand {
    /// Run seeds, each in a separate process, and summarize the outcomes
    Run(commands::run::Args),
    /// Run each seed in two processes, and compare the traces byte for byte
    Twice(commands::twice::Args),
    /// Plant each known bug in turn; every bug must be found
    Bugs(commands::bugs::Args),
    /// Print the events of a seed or a plan, by node and partition
    Replay(commands::one::ReplayArgs),
    /// Shrink the plan of a failing seed, while the same check still fails
    Shrink(commands::shrink::Args),
    /// Run a seed or a plan in this process, and print the outcome
    One(commands::one::Args),
}

fn main() -> anyhow::Result<ExitCode> {
    let good = match Args::parse().verb {
        SimulatorCommand::Run(args) => commands::run::run(args)?,
        SimulatorCommand::Twice(args) => commands::twice::run(args)?,
        SimulatorCommand::Bugs(args) => commands::bugs::run(args)?,
        SimulatorCommand::Replay(args) => commands::one::replay(args)?,
        SimulatorCommand::Shrink(args) => commands::shrink::run(args)?,
        SimulatorCommand::One(args) => commands::one::run(args)?,
    };
    Ok(match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
