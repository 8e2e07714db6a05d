//! The `ropewalk` command. What it promises stands in its `--help`; here is only the way in and out.

mod args;
mod exit;
mod logs;
mod output;
mod parse;
mod settings;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let done = logs::init(&cli.verb).and_then(|()| run(cli));
    exit::report(done)
}

fn run(cli: args::Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(verbs::run(cli));
    // A thread that waits for the next line of stdin cannot be told to stop; nobody waits for it.
    runtime.shutdown_background();
    done
}
