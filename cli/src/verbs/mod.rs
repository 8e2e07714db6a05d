//! One file a verb. A verb gets what the user gave, and returns what the exit code is made of.

mod bench;
mod cluster;
mod completions;
mod consume;
mod dev;
mod group;
mod group_rows;
mod growing;
mod host;
mod input;
mod node;
mod partition;
mod produce;
mod quarantine;
mod record;
mod rows;
mod seek;
mod span;
mod subscribe;
mod taken;
mod topic;
mod trace;

use anyhow::bail;
use ropewalk_client::{Client, ErrorKind};
use tokio::signal::ctrl_c;

use crate::args::{Cli, Global, Verb};
use crate::exit::usage;
use crate::output::Output;
use crate::tls;

/// What every verb that talks to a cluster needs.
#[derive(Debug, Clone)]
pub struct Context {
    global: Global,
    output: Output,
}

impl Context {
    /// A client of the cluster the flags name.
    async fn client(&self) -> anyhow::Result<Client> {
        let bootstrap: Vec<String> = self
            .global
            .bootstrap
            .iter()
            .cloned()
            .map(String::from)
            .collect();
        let mut builder = Client::builder(bootstrap).request_timeout(self.global.timeout);
        if let Some(tls) = tls::of_client(&self.global)? {
            builder = builder.tls(tls);
        }
        builder.connect().await.map_err(|error| match error.kind() {
            ErrorKind::InvalidArgument => usage(error.to_string()),
            _ => error.into(),
        })
    }
}

/// Does what was asked for.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    let output = Output::new(&cli.global);
    let context = Context {
        global: cli.global,
        output,
    };
    match cli.verb {
        Verb::Completions { shell } => completions::run(shell),
        // These end their own way when they are told to stop.
        Verb::Node(args) => node::run(args, &context.global).await,
        Verb::Dev(args) => dev::run(args).await,
        Verb::Produce(args) => produce::run(context, args).await,
        Verb::Consume(args) => consume::run(context, args).await,
        Verb::Trace(args) => trace::run(context, args).await,
        Verb::Bench(verb) => bench::run(context, verb).await,
        Verb::Topic(verb) => interruptible(topic::run(context, verb)).await,
        Verb::Group(verb) => interruptible(group::run(context, verb)).await,
        Verb::Partition(verb) => interruptible(partition::run(context, verb)).await,
        Verb::Cluster(verb) => interruptible(cluster::run(context, verb)).await,
    }
}

/// Ctrl-C ends the wait; what the cluster was already asked for may still happen.
async fn interruptible(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        done = work => done,
        Ok(()) = ctrl_c() => bail!("interrupted; what was asked of the cluster may still happen"),
    }
}
