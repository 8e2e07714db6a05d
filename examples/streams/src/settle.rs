//! Three members, each a separate process, share twelve partitions at a steady load. One is killed, one
//! joins, one is frozen for longer than its session, and the node that coordinates them is killed.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use ropewalk_client::{GroupInfo, Producer, Record};
use ropewalk_demo::cluster;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::stage::{LOOK_EVERY, PATIENCE, Stage, say, spread};

const TOPIC: &str = "settling";
const GROUP: &str = "settling";
const PARTITIONS: u32 = 12;
const MEMBERS: usize = 3;
/// Records per second meanwhile.
const RATE: u32 = 2_000;
/// Session timeout that the command requests.
const SESSION: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Times {
    killed: Vec<Duration>,
    joined: Vec<Duration>,
    frozen: Vec<Duration>,
    thawed: Vec<Duration>,
    coordinator: Vec<Duration>,
}

pub async fn run(stage: &mut Stage, rounds: u16) -> anyhow::Result<()> {
    stage.create(TOPIC, PARTITIONS).await?;
    let producer = stage.another().await?.producer(TOPIC).build().await?;
    let _writing = AbortOnDropHandle::new(tokio::spawn(write(producer)));
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        members.push(member(stage)?);
    }
    until_settled(stage, MEMBERS).await?;
    let mut times = Times::default();
    for _ in 0..rounds {
        round(stage, &mut members, &mut times).await?;
    }
    println!(
        "{MEMBERS} members with {PARTITIONS} partitions, {RATE} records/s; the group is settled again"
    );
    say("a member killed", spread(times.killed));
    say("a member started", spread(times.joined));
    say("a frozen one's session over", spread(times.frozen));
    say("a frozen one back", spread(times.thawed));
    say("the coordinator's node killed", spread(times.coordinator));
    Ok(())
}

async fn round(
    stage: &mut Stage,
    members: &mut Vec<Child>,
    times: &mut Times,
) -> anyhow::Result<()> {
    let mut killed = members.remove(0);
    let begun = Instant::now();
    killed.kill().await?;
    until_settled(stage, MEMBERS - 1).await?;
    times.killed.push(begun.elapsed());

    let begun = Instant::now();
    members.push(member(stage)?);
    until_settled(stage, MEMBERS).await?;
    times.joined.push(begun.elapsed());

    let frozen = members.first().and_then(Child::id);
    let frozen = frozen.context("a member has ended")?;
    let begun = Instant::now();
    signal(frozen, "STOP").await?;
    sleep_until(begun + SESSION).await;
    until_settled(stage, MEMBERS - 1).await?;
    times.frozen.push(begun.elapsed().saturating_sub(SESSION));
    let begun = Instant::now();
    signal(frozen, "CONT").await?;
    until_settled(stage, MEMBERS).await?;
    times.thawed.push(begun.elapsed());

    let coordinator = look(stage).await?.coordinator_node_id;
    let place = stage.ids.iter().position(|id| *id == coordinator);
    let place = place.context("the coordinator is none of the nodes")?;
    let begun = Instant::now();
    stage.nodes[place].kill().await?;
    until_committing(stage, coordinator).await?;
    times.coordinator.push(begun.elapsed());
    until_settled(stage, MEMBERS).await?;
    stage.nodes[place].start(PATIENCE).await?;
    stage.until_in_sync(TOPIC).await
}

/// Starts a member that reads all records.
fn member(stage: &Stage) -> anyhow::Result<Child> {
    Command::new(&stage.binary)
        .args([
            "consume",
            TOPIC,
            "--group",
            GROUP,
            "--follow",
            "--bootstrap",
        ])
        .arg(cluster::addresses(&stage.nodes))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("starting a consumer")
}

async fn write(producer: Producer) -> anyhow::Result<()> {
    let begun = Instant::now();
    for number in 0_u32.. {
        sleep_until(begun + Duration::from_secs(1) * number / RATE).await;
        let key = (number % 1_000).to_string();
        // The acknowledgement is not awaited: the delay after a node's death is measured elsewhere.
        drop(producer.send(Record::new().key(key).value("-")).await?);
    }
    Ok(())
}

async fn signal(process: u32, name: &str) -> anyhow::Result<()> {
    let told = Command::new("sh")
        .args(["-c", &format!("kill -{name} {process}")])
        .status()
        .await?;
    ensure!(told.success(), "no process {process} to send {name} to");
    Ok(())
}

async fn look(stage: &Stage) -> anyhow::Result<GroupInfo> {
    let begun = Instant::now();
    loop {
        match stage.client.admin().describe_group(GROUP).await {
            Ok(group) => return Ok(group),
            Err(error) if begun.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// Waits until this many members own all partitions in equal shares, and no partition is about to move.
async fn until_settled(stage: &Stage, members: usize) -> anyhow::Result<()> {
    until(stage, &format!("settle with {members} members"), |group| {
        let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
        for member in &group.members {
            shares.insert(&member.member_id, 0);
        }
        for one in &group.partitions {
            let moves = one.next_member_id.is_some() && one.next_member_id != one.member_id;
            let owner = one.member_id.as_deref();
            match owner.and_then(|owner| shares.get_mut(owner)) {
                Some(share) if !moves => *share += 1,
                _ => return false,
            }
        }
        let even = PARTITIONS as usize / members;
        shares.len() == members && shares.values().all(|share| *share == even)
    })
    .await
}

/// Waits until another node coordinates the group, and every partition's committed offset has advanced there.
async fn until_committing(stage: &Stage, former: u64) -> anyhow::Result<()> {
    let mut before: Option<BTreeMap<u32, u64>> = None;
    until(stage, "commit at another coordinator", |group| {
        if group.coordinator_node_id == former || group.coordinator_node_id == 0 {
            return false;
        }
        let positions = group.partitions.iter();
        let positions = positions.map(|one| (one.partition, one.committed.unwrap_or(0)));
        let now: BTreeMap<u32, u64> = positions.collect();
        let before = before.get_or_insert_with(|| now.clone());
        now.iter()
            .all(|(partition, at)| before.get(partition).is_none_or(|before| at > before))
    })
    .await
}

async fn until(
    stage: &Stage,
    what: &str,
    mut holds: impl FnMut(&GroupInfo) -> bool,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let group = look(stage).await?;
        if holds(&group) {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "the group does not {what}: {group:?}"
        );
        sleep(LOOK_EVERY).await;
    }
}
