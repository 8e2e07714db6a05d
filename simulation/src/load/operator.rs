//! The operator: makes the topic, and in the end waits until the cluster is whole again.

use std::collections::BTreeMap;

use ropewalk_client::Client;
use ropewalk_client::v1::{PartitionInfo, TopicSettings};
use tokio::time::sleep;

use super::{AGAIN, Clients, Found, TOPIC, read_all, until_done};

/// Creates the topic, unless an earlier try did it unheard.
pub async fn create_topic(clients: &Clients) {
    let client = clients.connect(3_000).await;
    let admin = client.admin();
    until_done("creating the topic", || async {
        if admin.topic(TOPIC).await?.is_none() {
            let settings = TopicSettings::default();
            admin
                .create_topic(TOPIC, clients.plan.load.partitions, settings)
                .await?;
        }
        Ok(())
    })
    .await;
}

/// Returns once every partition has a leader and all its replicas are in sync; until then says
/// through `missing` what is wanting.
pub async fn until_whole(clients: &Clients, mut missing: impl FnMut(String)) {
    let client = clients.connect(4_000).await;
    while let Err(what) = whole(clients, &client).await {
        missing(what);
        sleep(AGAIN).await;
    }
}

async fn whole(clients: &Clients, client: &Client) -> Result<(), String> {
    let topic = client.admin().topic(TOPIC).await;
    let topic = topic.map_err(|error| error.to_string())?;
    let topic = topic.ok_or("the topic is gone")?;
    let wanted = clients.plan.load.partitions as usize;
    if topic.partitions.len() != wanted {
        return Err(format!("{} of {wanted} partitions", topic.partitions.len()));
    }
    match topic.partitions.iter().find(|one| !is_whole(one)) {
        Some(one) => Err(format!("{one:?}")),
        None => Ok(()),
    }
}

fn is_whole(one: &PartitionInfo) -> bool {
    one.leader_node_id != 0
        && !one.replica_node_ids.is_empty()
        && one.in_sync_node_ids.len() == one.replica_node_ids.len()
}

/// What every partition holds.
pub async fn read_logs(clients: &Clients) -> Result<BTreeMap<u32, Vec<Found>>, String> {
    let mut logs = BTreeMap::new();
    for partition in 0..clients.plan.load.partitions {
        logs.insert(partition, read_all(clients, partition).await?);
    }
    Ok(logs)
}
