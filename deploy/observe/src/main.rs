//! Tests the dashboards and alert rules that operators get. First it runs the tests of the rules. Then it runs a
//! real Prometheus against three nodes with load, a group that falls behind, and refused requests. Every panel
//! query, and every metric family in a rule, must return samples, unless the list in `queries` explains it.

mod load;
mod prometheus;
mod queries;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use ropewalk_client::{Bootstrap, Client};
use ropewalk_demo::cluster::{self, Node};
use tokio::time::{Instant, sleep};

use crate::prometheus::Prometheus;
use crate::queries::Query;

/// Timeout of each step that should take seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause before unanswered queries are repeated.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const NODES: usize = 3;

/// Asks a real Prometheus every query of the dashboards and rules.
#[derive(Debug, Parser)]
struct Args {
    /// Directory of prometheus and promtool
    #[arg(long, value_name = "DIR")]
    prometheus: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    prometheus::test_rules(&args.prometheus).await?;
    println!("the rules hold what their tests ask of them");
    let binary = ropewalk_demo::build::command().await?;
    let dir = tempfile::tempdir()?;
    let mut nodes = cluster::cluster(&binary, dir.path(), NODES)?;
    let mut targets = Vec::new();
    for node in &mut nodes {
        let http = format!("127.0.0.1:{}", cluster::free_port()?);
        node.flags.extend(["--http".to_owned(), http.clone()]);
        targets.push(http);
    }
    cluster::start_all(&mut nodes, PATIENCE).await?;
    let addresses = nodes.iter().map(|node| node.address.as_str());
    let client = Client::connect(Bootstrap::from_iter(addresses)).await?;
    let load = load::begin(client).await?;
    let mut server = Prometheus::start(&args.prometheus, dir.path(), &targets).await?;
    let asked = tokio::select! {
        asked = ask_all(&server) => asked,
        ended = load => Err(ended),
    };
    server.stop().await?;
    stop(nodes).await?;
    asked
}

/// Repeats the queries until each has returned samples, or the time is up.
async fn ask_all(server: &Prometheus) -> anyhow::Result<()> {
    let all = queries::all()?;
    let mut open: Vec<&Query> = all.iter().collect();
    let begun = Instant::now();
    loop {
        let mut empty = Vec::new();
        for query in open {
            if server.ask(query).await? == 0 && query.must_answer() {
                empty.push(query);
            }
        }
        open = empty;
        if open.is_empty() {
            break;
        }
        if begun.elapsed() > PATIENCE {
            for query in &open {
                println!("  nothing: {}: {}", query.place, query.text);
            }
            ensure!(open.is_empty(), "{} queries return nothing", open.len());
        }
        sleep(AGAIN_AFTER).await;
    }
    let explained = all.iter().filter(|query| !query.must_answer()).count();
    println!(
        "{} queries: {} return something, {explained} may be empty where all is well",
        all.len(),
        all.len() - explained
    );
    Ok(())
}

async fn stop(nodes: Vec<Node>) -> anyhow::Result<()> {
    for mut node in nodes {
        node.terminate(PATIENCE).await?;
    }
    Ok(())
}
