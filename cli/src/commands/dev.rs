//! `ropewalk dev`: a whole cluster in one process, for development. Its nodes are real nodes on ports of this
//! machine. Their data stays until `--fresh`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::try_join_all;
use ropewalk_client::{Bootstrap, Client, TopicInfo};
use ropewalk_node::env::tls::TlsSettings;
use ropewalk_node::{Config, Ready};
use ropewalk_raft_store::data_dir::DataDir;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::host;
use super::node::ReadyLine;
use crate::args::DevArgs;
use crate::exit::usage;
use crate::logs;
use crate::output;

/// File with the parameters of a data directory. Other parameters would look for its nodes elsewhere.
const SHAPE_FILE: &str = "dev.json";
const HTTP_PORTS_ABOVE: u16 = 100;
/// Interval between two checks whether a client can publish.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Shape {
    nodes: u16,
    base_port: u16,
}

#[derive(Debug, Serialize)]
struct ReadyNodes {
    nodes: Vec<ReadyLine>,
}

pub async fn run(args: DevArgs) -> anyhow::Result<()> {
    let shape = Shape {
        nodes: args.nodes,
        base_port: args.base_port,
    };
    let dir = args.data_dir.clone().unwrap_or_else(default_dir);
    prepare(&dir, shape, args.fresh)?;

    let shutdown = CancellationToken::new();
    let asked = CancellationToken::new();
    host::stop_on_signals(asked.clone())?;
    tokio::spawn({
        let (asked, shutdown) = (asked.clone(), shutdown.clone());
        async move {
            asked.cancelled().await;
            logs::peers_are_stopping();
            shutdown.cancel();
        }
    });
    let net = host::network(TlsSettings::Off).await?;
    let mut serving = JoinSet::new();
    let mut starting = Vec::new();
    for number in 1..=shape.nodes {
        let (ready, is_ready) = oneshot::channel();
        starting.push(is_ready);
        let (data_dir, config) = (node_dir(&dir, number), config(shape, number));
        let (net, shutdown) = (net.clone(), shutdown.clone());
        serving.spawn(async move { host::serve(&data_dir, config, net, shutdown, ready).await });
    }
    let ended = tokio::select! {
        said = say_when_ready(shape, starting) => { said?; serving.join_next().await }
        ended = serving.join_next() => ended,
    };
    // If one node ends by itself, the others are stopped.
    shutdown.cancel();
    let mut done = flatten(ended);
    while let Some(ended) = serving.join_next().await {
        done = done.and(flatten(Some(ended)));
    }
    if done.is_ok() && asked.is_cancelled() {
        logs::say(&format!(
            "ropewalk: stopped; data kept in {}",
            dir.display()
        ));
    }
    done
}

fn flatten(
    ended: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>,
) -> anyhow::Result<()> {
    ended
        .unwrap_or(Ok(Ok(())))
        .context("a node terminated unexpectedly")?
}

fn address(shape: Shape, number: u16) -> String {
    format!("127.0.0.1:{}", shape.base_port + number)
}

fn config(shape: Shape, number: u16) -> Config {
    Config {
        advertise: address(shape, number),
        listen: address(shape, number),
        http: Some(format!(
            "127.0.0.1:{}",
            shape.base_port + HTTP_PORTS_ABOVE + number
        )),
        seeds: (1..=shape.nodes)
            .map(|number| address(shape, number))
            .collect(),
        stops_with_all: true,
        ..Config::default()
    }
}

/// Prints the ready line once every node serves and every partition has a leader.
async fn say_when_ready(
    shape: Shape,
    starting: Vec<oneshot::Receiver<Ready>>,
) -> anyhow::Result<()> {
    let Ok(nodes) = try_join_all(starting).await else {
        // A node ended; its result contains the reason.
        return std::future::pending().await;
    };
    let addresses = (1..=shape.nodes).map(|number| address(shape, number));
    let admin = Client::connect(Bootstrap::from_iter(addresses))
        .await?
        .admin();
    loop {
        let led = |topic: &TopicInfo| {
            topic
                .partitions
                .iter()
                .all(|partition| partition.leader_node_id.is_some())
        };
        match admin.topics().await {
            Ok(topics) if topics.iter().all(led) => break,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the cluster is not ready yet"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    output::ready(&ReadyNodes {
        nodes: nodes.into_iter().map(ReadyLine::from).collect(),
    })?;
    Ok(())
}

/// `ropewalk/dev` in the user's data directory, or in the temporary directory.
fn default_dir() -> PathBuf {
    let set = |name| {
        std::env::var_os(name)
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from)
    };
    let home = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")));
    home.unwrap_or_else(std::env::temp_dir).join("ropewalk/dev")
}

fn node_dir(dir: &Path, number: u16) -> PathBuf {
    dir.join(format!("node-{number}"))
}

/// Prepares the data directory for `shape`; fails if it can't be used.
fn prepare(dir: &Path, shape: Shape, fresh: bool) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let file = dir.join(SHAPE_FILE);
    let earlier = match std::fs::read(&file) {
        Ok(text) => Some(serde_json::from_slice::<Shape>(&text).with_context(|| {
            format!(
                "{} is damaged; delete {} and start again",
                file.display(),
                dir.display()
            )
        })?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    match earlier {
        Some(earlier) if fresh => wipe(dir, earlier)?,
        Some(earlier) if earlier != shape => {
            return Err(usage(format!(
                "{} holds a cluster of {} nodes from port {}; start it with --nodes {} --base-port {}, or delete its data with --fresh",
                dir.display(),
                earlier.nodes,
                earlier.base_port,
                earlier.nodes,
                earlier.base_port
            )));
        }
        Some(_) => return Ok(()),
        // `ROPEWALK_DATA_DIR` may be set for `ropewalk node`.
        None if DataDir::is_one(dir)
            || (1..=shape.nodes).any(|number| node_dir(dir, number).exists()) =>
        {
            bail!(
                "{} was not created by `ropewalk dev`; choose another --data-dir",
                dir.display()
            );
        }
        None => {}
    }
    let text = serde_json::to_vec(&shape)?;
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Deletes the nodes of an earlier run, and nothing else; fails while one of them runs.
fn wipe(dir: &Path, earlier: Shape) -> anyhow::Result<()> {
    let nodes = (1..=earlier.nodes)
        .map(|number| node_dir(dir, number))
        .filter(|dir| dir.exists());
    let nodes = nodes.collect::<Vec<_>>();
    let locks = nodes
        .iter()
        .map(|node| DataDir::open(node))
        .collect::<Result<Vec<_>, _>>()?;
    drop(locks);
    for node in nodes {
        std::fs::remove_dir_all(&node)
            .with_context(|| format!("cannot delete {}", node.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: Shape = Shape {
        nodes: 3,
        base_port: 7_100,
    };
    const ONE: Shape = Shape {
        nodes: 1,
        base_port: 7_100,
    };

    #[test]
    fn a_directory_made_for_other_nodes_is_refused_until_it_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), THREE, false).unwrap();
        prepare(dir.path(), THREE, false).unwrap();
        let error = prepare(dir.path(), ONE, false).unwrap_err().to_string();
        assert!(
            error.contains("--nodes 3") && error.contains("--fresh"),
            "{error}"
        );
        prepare(dir.path(), ONE, true).unwrap();
        prepare(dir.path(), ONE, false).unwrap();
    }

    #[test]
    fn fresh_deletes_the_nodes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), THREE, false).unwrap();
        drop(DataDir::open(&make(dir.path(), "node-2")).unwrap());
        std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        prepare(dir.path(), THREE, true).unwrap();
        assert!(!dir.path().join("node-2").exists());
        assert!(dir.path().join("notes.txt").exists());
    }

    #[test]
    fn fresh_refuses_while_a_node_runs_there() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), THREE, false).unwrap();
        let _running = DataDir::open(&make(dir.path(), "node-2")).unwrap();
        assert!(prepare(dir.path(), THREE, true).is_err());
        assert!(dir.path().join("node-2").exists());
    }

    #[test]
    fn a_directory_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), "node-1");
        assert!(prepare(dir.path(), THREE, false).is_err());
        assert!(prepare(dir.path(), THREE, true).is_err());
    }

    #[test]
    fn the_directory_of_a_node_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path()).unwrap());
        assert!(prepare(dir.path(), THREE, false).is_err());
        assert!(prepare(dir.path(), THREE, true).is_err());
        assert!(!dir.path().join(SHAPE_FILE).exists());
    }

    fn make(dir: &Path, name: &str) -> PathBuf {
        let made = dir.join(name);
        std::fs::create_dir_all(&made).unwrap();
        made
    }
}
