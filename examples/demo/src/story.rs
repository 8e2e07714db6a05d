//! The steps of the demo, in order.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::future::try_join_all;
use ropewalk_client::{Bootstrap, Client, TopicInfo, TopicSettings};
use ropewalk_demo::check::{Place, check};
use ropewalk_demo::cluster::{self, Node};
use ropewalk_demo::flights::{self, Flight};
use ropewalk_demo::read;
use tokio::time::{Instant, sleep};

use crate::account::{number, say, seconds};
use ropewalk_demo::publish::{Ack, Publisher, longest_silence};

const TOPIC: &str = "flights";
const NODES: usize = 3;
const PARTITIONS: u32 = 12;
/// Time limit of steps that should take a second or two.
const PATIENCE: Duration = Duration::from_secs(60);
/// Interval at which an awaited condition is checked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs the whole demo, with `rate` records per second.
pub async fn tell(binary: &Path, rate: u32) -> anyhow::Result<()> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/flights-2013-01.csv.gz");
    let flights = flights::read(&data)?;
    println!(
        "{} flights, {NODES} nodes, and one of them killed half-way",
        number(flights.len())
    );

    let dir = tempfile::tempdir()?;
    let mut nodes = cluster::cluster(binary, dir.path(), NODES)?;
    let ids = start(&mut nodes).await?;
    let addresses = nodes.iter().map(|node| node.address.as_str());
    let client = Client::connect(Bootstrap::from_iter(addresses)).await?;
    create_topic(&client).await?;

    let half = flights.len() / 2;
    let three_quarters = half + half / 2;
    let begun = Instant::now();
    let producer = client.producer(TOPIC).build().await?;
    let mut publisher = Publisher::new(producer, rate);
    publisher.publish(&flights[..half]).await?;

    let (victim, led) = busiest(&topic(&client).await?)?;
    let node = ids
        .iter()
        .position(|id| *id == victim)
        .context("a leader is none of the nodes")?;
    nodes[node].kill().await?;
    let killed = Instant::now();
    let told = format!(
        "node {victim} with SIGKILL after {} records; it led {} of {PARTITIONS} partitions",
        number(half),
        led.len()
    );
    say("killed", told);
    publisher.publish(&flights[half..three_quarters]).await?;

    nodes[node].spawn()?;
    say(
        "restarted",
        format!("node {victim} after {} records", number(three_quarters)),
    );
    publisher.publish(&flights[three_quarters..]).await?;
    let acks = publisher.finish().await?;
    let silence = longest_silence(&acks, &led, killed);
    say(
        "fail-over",
        format!(
            "its partitions took records again after {} ms at most",
            silence.as_millis()
        ),
    );
    say(
        "published",
        format!(
            "{} records, all acknowledged, in {}",
            number(acks.len()),
            seconds(begun.elapsed())
        ),
    );

    let back = nodes[node].ready(PATIENCE).await?;
    ensure!(
        back.node_id == victim,
        "node {victim} came back as node {}",
        back.node_id
    );
    wait_until_in_sync(&client).await?;
    read_and_check(&client, &flights, &acks).await?;
    stop(nodes).await
}

async fn start(nodes: &mut [Node]) -> anyhow::Result<Vec<u64>> {
    let begun = Instant::now();
    let ready = cluster::start_all(nodes, PATIENCE).await?;
    let ids: Vec<u64> = ready.iter().map(|ready| ready.node_id).collect();
    let names: Vec<String> = ids.iter().map(u64::to_string).collect();
    say(
        "started",
        format!("nodes {} in {}", names.join(", "), seconds(begun.elapsed())),
    );
    Ok(ids)
}

async fn create_topic(client: &Client) -> anyhow::Result<()> {
    let settings = TopicSettings::default().replicas(NODES as u32);
    client
        .admin()
        .create_topic(TOPIC, PARTITIONS, settings)
        .await?;
    say(
        "created",
        format!("topic {TOPIC}, {PARTITIONS} partitions, {NODES} replicas each"),
    );
    wait_for(client, "a leader for every partition", |partitions| {
        partitions
            .partitions
            .iter()
            .all(|partition| partition.leader_node_id.is_some())
    })
    .await
}

async fn topic(client: &Client) -> anyhow::Result<TopicInfo> {
    let found = client.admin().topic(TOPIC).await?;
    found.context("the topic is gone")
}

/// The node that leads most partitions, and those partitions.
fn busiest(topic: &TopicInfo) -> anyhow::Result<(u64, Vec<u32>)> {
    let led_by = |node: u64| -> Vec<u32> {
        let led = topic
            .partitions
            .iter()
            .filter(|one| one.leader_node_id == Some(node));
        led.map(|one| one.partition).collect()
    };
    let leaders = topic.partitions.iter().filter_map(|one| one.leader_node_id);
    let busiest = leaders.max_by_key(|node| (led_by(*node).len(), *node));
    let node = busiest.context("no partition has a leader")?;
    Ok((node, led_by(node)))
}

async fn wait_until_in_sync(client: &Client) -> anyhow::Result<()> {
    let begun = Instant::now();
    wait_for(client, "all replicas to be in sync", |topic| {
        topic.partitions.iter().all(|partition| {
            let in_sync = &partition.in_sync_node_ids;
            partition.leader_node_id.is_some()
                && partition
                    .replica_node_ids
                    .iter()
                    .all(|node| in_sync.contains(node))
        })
    })
    .await?;
    say(
        "in sync",
        format!("all replicas, {} later", seconds(begun.elapsed())),
    );
    Ok(())
}

async fn wait_for(
    client: &Client,
    what: &str,
    holds: impl Fn(&TopicInfo) -> bool,
) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = client.admin().topic(TOPIC).await?;
        if found
            .as_ref()
            .is_some_and(|topic| topic.partitions.len() == PARTITIONS as usize && holds(topic))
        {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("waited {PATIENCE:?} for {what}; it is {found:?}");
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn read_and_check(client: &Client, flights: &[Flight], acks: &[Ack]) -> anyhow::Result<()> {
    let begun = Instant::now();
    let read = read::everything(client, TOPIC, PARTITIONS).await?;
    say(
        "read back",
        format!(
            "{} records from {PARTITIONS} partitions in {}",
            number(read.len()),
            seconds(begun.elapsed())
        ),
    );
    let acked: Vec<Place> = acks.iter().map(|ack| ack.place).collect();
    match check(flights, &acked, &read) {
        Ok(keys) => {
            say(
                "checked",
                format!(
                    "each record is there exactly once, in order for each of {} keys: the check holds",
                    number(keys)
                ),
            );
            Ok(())
        }
        Err(wrong) => bail!("the check does not hold: {wrong}"),
    }
}

/// Stops the nodes, as an operator would. A node that does not end with success is a failure, too.
async fn stop(nodes: Vec<Node>) -> anyhow::Result<()> {
    let begun = Instant::now();
    try_join_all(nodes.into_iter().map(async |mut node| {
        let ended = node.terminate(PATIENCE).await?;
        let words = || node.last_words();
        ensure!(ended.success(), "a node ended with {ended}; {}", words());
        Ok(())
    }))
    .await?;
    let took = seconds(begun.elapsed());
    say("stopped", format!("all nodes, by SIGTERM, in {took}"));
    Ok(())
}
