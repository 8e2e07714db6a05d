//! The `ropewalk` command: entry and exit. Its contract is its `--help`.

mod args;
mod commands;
mod exit;
mod logs;
mod otlp;
mod output;
mod parse;
#[cfg(test)]
mod reference;
mod settings;
mod tls;

use std::process::ExitCode;
use std::time::Duration;

use clap::FromArgMatches;
use tikv_jemallocator::Jemalloc;

/// Returns memory to the system after a flood, which the C library's allocator keeps: docs/performance.md.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    commands::completions::answer();
    let matches = args::command().get_matches();
    let cli = args::Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let code = exit::report(run(cli));
    logs::end();
    code
}

// A product must not contain planted bugs.
const _: () = assert!(!ropewalk_proto::planted_bug::POSSIBLE);

/// Time limit for a node's last tasks to close its database.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

fn run(cli: args::Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let is_node = matches!(
        cli.verb,
        args::CliCommand::Node(_) | args::CliCommand::Dev(_)
    );
    // Only nodes send spans.
    let spans = match is_node {
        true => {
            let _within = runtime.enter();
            otlp::spans()?
        }
        false => None,
    };
    logs::init(&cli.verb, spans.as_ref())?;
    let done = runtime.block_on(commands::run(cli));
    drop(spans);
    if is_node {
        // A database that is still open when the process ends crashes its own threads.
        runtime.shutdown_timeout(CLOSE_WITHIN);
    } else {
        // A thread that waits for a line of stdin cannot be stopped, so the process does not wait for it.
        runtime.shutdown_background();
    }
    done
}
