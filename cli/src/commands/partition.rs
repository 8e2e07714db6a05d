//! `ropewalk partition`.

use serde::Serialize;

use super::Context;
use super::rows::PartitionRow;
use crate::args::PartitionCommand;
use crate::exit::usage;
use crate::output::list;
use crate::parse::PartitionName;

pub async fn run(context: Context, verb: PartitionCommand) -> anyhow::Result<()> {
    match verb {
        PartitionCommand::List { topic } => {
            let mut topics = match topic {
                Some(name) => vec![context.topic(&name).await?],
                None => context.client().await?.admin().topics().await?,
            };
            topics.sort_by(|a, b| a.name.cmp(&b.name));
            let rows: Vec<PartitionRow> = topics.iter().flat_map(PartitionRow::of).collect();
            Ok(context.output.rows(&rows)?)
        }
        PartitionCommand::Transfer { partition, to } => transfer(context, partition, to).await,
        PartitionCommand::Move {
            partition,
            replicas,
        } => move_to(context, partition, replicas).await,
    }
}

#[derive(Debug, Serialize)]
struct Transferred {
    topic: String,
    partition: u32,
    leader: u64,
}

async fn transfer(context: Context, name: PartitionName, to: u64) -> anyhow::Result<()> {
    let admin = context.client().await?.admin();
    admin
        .transfer_leader(&name.topic, name.partition, to)
        .await?;
    let done = Transferred {
        topic: name.topic.clone(),
        partition: name.partition,
        leader: to,
    };
    Ok(context.output.one(&done, |done| {
        format!("node {} now leads {name}", done.leader)
    })?)
}

#[derive(Debug, Serialize)]
struct Moving {
    topic: String,
    partition: u32,
    replicas: Vec<u64>,
}

async fn move_to(context: Context, name: PartitionName, replicas: Vec<u64>) -> anyhow::Result<()> {
    let mut sorted = replicas.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != replicas.len() {
        return Err(usage(format!(
            "--replicas {}: a node holds at most one replica; name each node once",
            list(&replicas)
        )));
    }
    let admin = context.client().await?.admin();
    admin
        .move_partition(&name.topic, name.partition, replicas.clone())
        .await?;
    let done = Moving {
        topic: name.topic.clone(),
        partition: name.partition,
        replicas,
    };
    let text = |done: &Moving| {
        let to = list(&done.replicas);
        format!(
            "{name} is moving to nodes {to}; `ropewalk partition list {}` shows the progress",
            done.topic
        )
    };
    Ok(context.output.one(&done, text)?)
}
