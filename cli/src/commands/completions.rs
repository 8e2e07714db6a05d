//! `ropewalk completions`: the completion script for a shell. The script runs this program at each key press,
//! so that it can also offer the topics and groups of the cluster.

use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgMatches, FromArgMatches};
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use ropewalk_client::Client;
use ropewalk_proto::ids::is_internal;
use tokio::time::timeout;

use super::Context;
use crate::args::{self, Global};
use crate::output::Output;

/// Variable through which the script calls.
const VARIABLE: &str = "ROPEWALK_COMPLETE";
/// Time limit for the cluster's answer after a key press.
const WITHIN: Duration = Duration::from_secs(1);
const PROGRAM: &str = "ropewalk";

/// Prints the script for a shell.
pub fn run(shell: Shell) -> anyhow::Result<()> {
    let shells = Shells::builtins();
    let name = shell.to_string();
    let found = shells.completer(&name);
    let found =
        found.with_context(|| format!("completions for {name} are not supported; use bash"))?;
    // Written to a buffer first: a generator may panic if its writer fails, as a closed pipe does.
    let mut text =
        b"# Completes commands, flags such as --bootstrap, topics and groups.\n".to_vec();
    found.write_registration(VARIABLE, PROGRAM, PROGRAM, &completer(), &mut text)?;
    std::io::stdout().write_all(&text)?;
    Ok(())
}

/// Command with which the script calls this program: the same as now, but valid in any working directory.
fn completer() -> String {
    let called = env::args_os().next().map(PathBuf::from);
    let called = called.unwrap_or_else(|| PROGRAM.into());
    let path = match (called.components().count() > 1, env::current_dir()) {
        (true, Ok(here)) => here.join(called),
        _ => called,
    };
    path.to_string_lossy().into_owned()
}

/// Answers the script and ends the process, if the script started it.
pub fn answer() {
    CompleteEnv::with_factory(args::command)
        .var(VARIABLE)
        .complete();
}

/// The topics of the cluster.
pub fn topics() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        candidates(async |client| {
            let topics = client.admin().topics().await?.into_iter();
            let names = topics.map(|topic| topic.name);
            Ok(names.filter(|name| !is_internal(name)).collect())
        })
    })
}

/// The consumer groups of the cluster.
pub fn groups() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        candidates(async |client| {
            let groups = client.admin().list_groups().await?.into_iter();
            Ok(groups.map(|group| group.group).collect())
        })
    })
}

/// Names that the cluster returns in time; none on an error or a timeout.
fn candidates(
    ask: impl AsyncFnOnce(Client) -> anyhow::Result<Vec<String>>,
) -> Vec<CompletionCandidate> {
    let asked = || {
        let context = context()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let told = async { ask(context.builder()?.connect().await?).await };
        let told = runtime.block_on(async { timeout(WITHIN, told).await });
        runtime.shutdown_background();
        told?
    };
    let mut names = asked().unwrap_or_default();
    names.sort();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// Global flags of the line being typed; the rest of the line may be incomplete.
fn context() -> anyhow::Result<Context> {
    let typed = env::args_os().skip_while(|word| word != "--").skip(1);
    let matches: ArgMatches = args::command()
        .ignore_errors(true)
        .try_get_matches_from(typed)?;
    let global = Global::from_arg_matches(&matches)?;
    Ok(Context {
        output: Output::new(&global),
        global,
    })
}
