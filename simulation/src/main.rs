//! `ropewalk-sim`: runs seeds, each in a process of its own, and says what came of them.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use ropewalk_simulation::plan::Plan;
use ropewalk_simulation::run::run;

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
    /// Runs one seed in this process and prints what came of it
    One {
        /// The seed
        #[arg(long)]
        seed: u64,
        /// How long faults fall, in simulated seconds
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let Verb::One { seed, seconds } = Args::parse().verb;
    let outcome = run(&Plan::draw(seed, Duration::from_secs(seconds)));
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(match outcome.violations.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
