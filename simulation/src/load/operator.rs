//! The operator: creates the topic, and at the end waits until the cluster has recovered.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use ropewalk_client::{Client, Error, PartitionInfo};
use tokio::time::sleep;

use super::producer::{outcome, sent};
use super::reader::{Log, read_all};
use super::record::{self, Value};
use super::{
    AGAIN, Clients, MAIN, WITHOUT_SEQUENCE, group_name, topic_churn, topic_name, tuner, until_done,
};
use crate::history::{Answer, Call, Place};

/// Creates the topic, unless it exists: another client may have created it, or an earlier attempt whose
/// answer was lost.
pub async fn create_topic(clients: &Clients, who: u64) {
    let client = clients.connect(3_000 + who).await;
    let admin = client.admin();
    let load = &clients.plan.load;
    let name = topic_name(MAIN);
    until_done("creating the topic", || async {
        if admin.topic(&name).await?.is_none() {
            let call = Call::CreateTopic {
                topic: MAIN,
                partitions: load.partitions,
                settings: load.topic(),
            };
            let asked = admin.create_topic(&name, load.partitions, load.topic().into());
            clients.call(call, asked, |_| Answer::Done).await?;
        }
        Ok(())
    })
    .await;
}

/// Returns once no client waits for an answer.
pub async fn until_idle(clients: &Clients) {
    while clients.producing() {
        sleep(AGAIN).await;
    }
}

/// Returns once every partition has a leader and all its replicas are in sync. Until then it reports the
/// missing part through `missing`.
pub async fn until_whole(clients: &Clients, mut missing: impl FnMut(String)) {
    let client = clients.connect(4_000).await;
    while let Err(what) = whole(clients, &client).await {
        missing(what);
        sleep(AGAIN).await;
    }
}

async fn whole(clients: &Clients, client: &Client) -> Result<(), String> {
    let topics = client.admin().topics().await;
    let topics = topics.map_err(|error| error.to_string())?;
    let main = topics.iter().find(|topic| topic.name == topic_name(MAIN));
    let main = main.ok_or("the topic is gone")?;
    let grown = clients.grown.load(Ordering::Relaxed);
    let wanted = clients.plan.load.partitions.max(grown);
    let there = main.partitions.len() as u32;
    if there < wanted {
        return Err(format!("{there} of {wanted} partitions"));
    }
    let ring = main.ring_partitions;
    if ring != there {
        return Err(format!("keys map to {ring} of {there} partitions"));
    }
    for topic in &topics {
        if let Some(one) = topic.partitions.iter().find(|one| !is_whole(one)) {
            return Err(format!("{}: {one:?}", topic.name));
        }
    }
    Ok(())
}

fn is_whole(one: &PartitionInfo) -> bool {
    let in_sync = |node| one.in_sync_node_ids.contains(node);
    one.leader_node_id.is_some()
        && !one.replica_node_ids.is_empty()
        && one.replica_node_ids.iter().all(in_sync)
}

/// Lists the topics, and publishes a record to every partition of each: a recovered cluster serves every
/// request. No other client may be active.
pub async fn until_served(clients: &Clients) {
    let client = clients.connect(8_000).await;
    let topics = until_done("listing topics", || topic_churn::list(clients, &client)).await;
    until_done("listing settings", || tuner::look(clients, &client)).await;
    let mut number = 0;
    for topic in topics {
        let mut partition = 0;
        while partition < partitions(&client, topic).await {
            number += 1;
            match probe(clients, &client, (topic, partition), number).await {
                Ok(()) => partition += 1,
                Err(error) => {
                    tracing::debug!(%error, topic, partition, "not served yet");
                    sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Number of partitions of a topic; 0 if it is gone. A deletion with an unknown outcome may take effect late.
async fn partitions(client: &Client, topic: u32) -> u32 {
    let admin = client.admin();
    let name = topic_name(topic);
    let found = until_done("looking at a topic", || admin.topic(&name)).await;
    found.map_or(0, |found| found.partitions.len() as u32)
}

async fn probe(
    clients: &Clients,
    client: &Client,
    (topic, partition): (u32, u32),
    number: u64,
) -> Result<(), Error> {
    let name = (WITHOUT_SEQUENCE + 2, number);
    let made = record::make(name, None, Value::Bytes(10));
    sent(clients, name, topic, None, made.content);
    let record = made.record.partition(partition);
    let ended = client.publish(&topic_name(topic), record).await;
    outcome(clients, name, topic, ended.clone());
    ended.map(|_| ())
}

/// Returns once every group has committed all records in these logs, and every partition has its final owner.
/// Until then it reports the missing part through `missing`.
pub async fn until_groups_settled(
    clients: &Clients,
    ends: &BTreeMap<Place, u64>,
    mut missing: impl FnMut(String),
) {
    let client = clients.connect(8_500).await;
    for group in (0..).take(clients.plan.load.groups.len()) {
        while let Err(what) = settled(&client, group, ends).await {
            missing(format!("group {group}: {what}"));
            sleep(AGAIN).await;
        }
    }
}

async fn settled(client: &Client, group: u32, ends: &BTreeMap<Place, u64>) -> Result<(), String> {
    let described = client.admin().describe_group(&group_name(group)).await;
    let described = described.map_err(|error| error.to_string())?;
    for (place, end) in ends {
        let name = topic_name(place.topic);
        let mut known = described.partitions.iter();
        let known =
            known.find(|one| one.topic.as_ref() == Some(&name) && one.partition == place.partition);
        let known = known.ok_or_else(|| format!("it does not know {place}"))?;
        if known.member_id.is_none() || known.next_member_id.is_some() {
            return Err(format!("{place} has no owner to stay: {known:?}"));
        }
        if known.committed < Some(*end) {
            let committed = known.committed;
            return Err(format!(
                "{committed:?} is committed of {place}, which ends at {end}"
            ));
        }
    }
    Ok(())
}

/// Content of every partition of the topic.
///
/// # Errors
/// The reason why it could not be read.
pub async fn read_logs(clients: &Clients) -> Result<BTreeMap<Place, Log>, String> {
    let client = clients.connect(2_000).await;
    let mut logs = BTreeMap::new();
    for partition in 0..partitions(&client, MAIN).await {
        let place = Place {
            topic: MAIN,
            partition,
        };
        logs.insert(place, read_all(clients, place).await?);
    }
    Ok(logs)
}
