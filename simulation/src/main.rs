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
    about = "Whole clusters in virtual time, on one seed"
)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs seeds, each in a process of its own, and sums up what came of them
    Run(verbs::run::Args),
    /// Runs each seed in two processes and compares all that happened, byte for byte
    Twice(verbs::twice::Args),
    /// Plants each known mistake in turn; every one must be found
    Bugs(verbs::bugs::Args),
    /// Tells what happens on one seed, or in a plan: who does what, by node and partition
    Replay(verbs::one::ReplayArgs),
    /// Makes a failing seed's plan as small as it gets while the same check still fails
    Shrink(verbs::shrink::Args),
    /// Runs one seed, or a plan, in this process and prints what came of it
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
