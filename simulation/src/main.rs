//! `ropewalk-sim`: runs seeds, each in a process of its own, and reports their outcomes.

mod interpose;
mod verbs;

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
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run seeds, each in a separate process, and summarize the outcomes
    Run(verbs::run::Args),
    /// Run each seed in two processes, and compare the traces byte for byte
    Twice(verbs::twice::Args),
    /// Plant each known bug in turn; every bug must be found
    Bugs(verbs::bugs::Args),
    /// Print the events of a seed or a plan, by node and partition
    Replay(verbs::one::ReplayArgs),
    /// Shrink the plan of a failing seed, while the same check still fails
    Shrink(verbs::shrink::Args),
    /// Run a seed or a plan in this process, and print the outcome
    One(verbs::one::Args),
}

fn main() -> anyhow::Result<ExitCode> {
    let good = match Args::parse().verb {
        Verb::Run(args) => verbs::run::run(args)?,
        Verb::Twice(args) => verbs::twice::run(args)?,
        Verb::Bugs(args) => verbs::bugs::run(args)?,
        Verb::Replay(args) => verbs::one::replay(args)?,
        Verb::Shrink(args) => verbs::shrink::run(args)?,
        Verb::One(args) => verbs::one::run(args)?,
    };
    Ok(match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
