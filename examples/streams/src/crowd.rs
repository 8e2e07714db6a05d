//! Very many groups: the memory that each costs the nodes, and the time until all are served again after a
//! kill. The killed node coordinates a third of them.

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use ropewalk_client::{Client, Record};
use tokio::time::{Instant, sleep, timeout};

use crate::stage::{LOOK_EVERY, PATIENCE, Stage, say};

const TOPIC: &str = "crowd";
const PARTITIONS: u32 = 3;
const RECORDS: u32 = 300;
/// Number of groups that join at the same time.
const AT_ONCE: usize = 32;

pub async fn run(stage: &mut Stage, groups: u32) -> anyhow::Result<()> {
    stage.create(TOPIC, PARTITIONS).await?;
    let producer = stage.client.producer(TOPIC).build().await?;
    for number in 0..RECORDS {
        let record = Record::new().key(number.to_string()).value("of interest");
        producer.send(record).await?.await?;
    }
    let before = memory_bytes(stage)?;
    let begun = Instant::now();
    let one = |number| join(stage.client.clone(), name(number));
    stream::iter((0..groups).map(|number| Ok(one(number))))
        .try_for_each_concurrent(AT_ONCE, |joined| joined)
        .await?;
    let took = begun.elapsed();
    println!("{groups} groups, one after the other in {AT_ONCE} rows");
    say(
        "joined, read, committed, left",
        format!(
            "{:.1} s, {:.0}/s",
            took.as_secs_f64(),
            f64::from(groups) / took.as_secs_f64()
        ),
    );
    let grown = memory_bytes(stage)?.saturating_sub(before);
    say(
        "memory of all nodes, a group",
        format!("{:.1} KiB", grown as f64 / f64::from(groups) / 1024.0),
    );
    let begun = Instant::now();
    let listed = stage.client.admin().list_groups().await?;
    let ours = listed.iter().filter(|one| one.group.starts_with(TOPIC));
    ensure!(ours.count() == groups as usize, "a group is not listed");
    say(
        "all are listed in",
        format!("{} ms", begun.elapsed().as_millis()),
    );
    after_a_loss(stage, groups).await
}

fn name(number: u32) -> String {
    format!("{TOPIC}-{number}")
}

/// Joins, processes a record of each partition, and leaves. The committed offsets stay.
async fn join(client: Client, group: String) -> anyhow::Result<()> {
    let mut records = client.subscribe(&group).topics([TOPIC]).build().await?;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < PARTITIONS as usize {
        let next = timeout(PATIENCE, records.next()).await;
        let delivery = next.with_context(|| format!("group {group} gets nothing"))?;
        let delivery = delivery.context("a subscription ended")??;
        seen.insert(delivery.partition);
        delivery.ack();
    }
    Ok(records.close_and_leave().await?)
}

/// Kills a node, which coordinates about a third of the groups.
async fn after_a_loss(stage: &mut Stage, groups: u32) -> anyhow::Result<()> {
    stage.nodes[0].kill().await?;
    let begun = Instant::now();
    let admin = stage.client.admin();
    for number in (0..groups).step_by(groups as usize / 100 + 1) {
        loop {
            if let Ok(lag) = admin.group_lag(&name(number)).await {
                let committed = lag.iter().filter_map(|one| one.committed).sum::<u64>();
                ensure!(committed > 0, "group {number} lost its position");
                break;
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "group {number} is not looked after"
            );
            sleep(LOOK_EVERY).await;
        }
    }
    say(
        "a node killed: looked after again",
        format!("{:.1} s", begun.elapsed().as_secs_f64()),
    );
    stage.nodes[0].start(PATIENCE).await?;
    stage.until_in_sync(TOPIC).await
}

/// Resident memory of all nodes.
fn memory_bytes(stage: &Stage) -> anyhow::Result<u64> {
    let mut all = 0;
    for node in &stage.nodes {
        let pid = node.pid().context("a node does not run")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        all += kib.context("no VmRSS")?.parse::<u64>()? * 1024;
    }
    Ok(all)
}
