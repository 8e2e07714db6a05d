//! One file per command. A command gets the user's arguments, and returns the result from which the exit code
//! follows.

mod bench;
mod cluster;
pub mod completions;
mod connect;
mod consume;
mod dev;
mod given;
mod group;
mod group_rows;
mod growing;
mod host;
mod input;
mod interrupt;
mod node;
mod partition;
mod printer;
mod produce;
mod range;
mod record;
mod records;
mod rows;
mod seek;
mod subscribe;
mod suggest;
mod taken;
mod topic;
mod topic_list;
mod trace;
mod version;

use anyhow::bail;

use self::interrupt::Interrupts;
use crate::args::{Cli, CliCommand, Global};
use crate::output::Output;

/// Context of every command that talks to a cluster.
#[derive(Debug, Clone)]
pub struct Context {
    global: Global,
    output: Output,
}

/// Runs the command.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    let output = Output::new(&cli.global);
    let context = Context {
        global: cli.global,
        output,
    };
    let (asked, topics) = (context.clone(), suggest::topics(&cli.verb));
    match dispatch(context, cli.verb).await {
        Err(error) if suggest::is_unknown_topic(&error) => {
            Err(suggest::with_near_topic(&asked, &topics, error).await)
        }
        done => done,
    }
}

async fn dispatch(context: Context, verb: CliCommand) -> anyhow::Result<()> {
    // Interrupts count from here on, since connecting can take long too.
    let interrupts = Interrupts::listen;
    match verb {
        CliCommand::Completions { shell } => completions::run(shell),
        CliCommand::Version => version::run(context.output),
        // These commands handle their own shutdown.
        CliCommand::Node(args) => node::run(args, &context.global).await,
        CliCommand::Dev(args) => dev::run(args).await,
        CliCommand::Produce(args) => produce::run(context, args, interrupts()?).await,
        CliCommand::Consume(args) => consume::run(context, args, interrupts()?).await,
        CliCommand::Trace(args) => trace::run(context, args, interrupts()?).await,
        CliCommand::Bench(verb) => bench::run(context, verb, interrupts()?).await,
        CliCommand::Topic(verb) => interruptible(topic::run(context, verb), interrupts()?).await,
        CliCommand::Group(verb) => interruptible(group::run(context, verb), interrupts()?).await,
        CliCommand::Partition(verb) => {
            interruptible(partition::run(context, verb), interrupts()?).await
        }
        CliCommand::Cluster(verb) => {
            interruptible(cluster::run(context, verb), interrupts()?).await
        }
    }
}

/// Ends the wait at Ctrl-C; requests that were already sent may still take effect.
async fn interruptible(
    work: impl Future<Output = anyhow::Result<()>>,
    mut interrupts: Interrupts,
) -> anyhow::Result<()> {
    tokio::select! {
        done = work => done,
        () = interrupts.next() => bail!("interrupted; the request may still take effect"),
    }
}
