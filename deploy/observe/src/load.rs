//! Load that gives the metrics values: records, a group that keeps up, a group that stopped reading, and requests
//! that are refused.

use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use ropewalk_client::{Client, Offset, Record, TopicSettings};
use tokio::time::sleep;

const TOPIC: &str = "observed";
const PARTITIONS: u32 = 6;
/// Pause between two records.
const PAUSE: Duration = Duration::from_millis(20);

/// Creates the topic and returns the load as a future, which completes only with an error.
pub async fn begin(client: Client) -> anyhow::Result<impl Future<Output = anyhow::Error>> {
    let settings = TopicSettings::default().replicas(3);
    let admin = client.admin();
    admin.create_topic(TOPIC, PARTITIONS, settings).await?;
    Ok(async move {
        let ended = tokio::try_join!(
            publish(&client),
            read(&client),
            stop_reading(&client),
            be_refused(&client)
        );
        match ended {
            Ok(_) => anyhow::anyhow!("the load has ended"),
            Err(error) => error,
        }
    })
}

async fn publish(client: &Client) -> anyhow::Result<()> {
    let producer = client.producer(TOPIC).build().await?;
    for number in 0u64.. {
        let record = Record::new()
            .key(format!("key-{}", number % 50))
            .value(format!("record {number}"));
        producer.send(record).await?.await.context("a record")?;
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Runs a group that keeps up.
async fn read(client: &Client) -> anyhow::Result<()> {
    let group = client.subscribe("keeps-up").topics([TOPIC]);
    let mut group = group.from(Offset::Beginning).build().await?;
    while let Some(delivery) = group.next().await {
        delivery?.ack();
    }
    anyhow::bail!("the group has ended")
}

/// Runs a group whose member reads a little and never returns.
async fn stop_reading(client: &Client) -> anyhow::Result<()> {
    let group = client.subscribe("stopped").topics([TOPIC]);
    let mut group = group.from(Offset::Beginning).build().await?;
    for _ in 0..10 {
        if let Some(delivery) = group.next().await {
            delivery?.ack();
        }
    }
    group.close().await?;
    std::future::pending().await
}

/// Sends requests that the cluster refuses because of a mistake of the caller.
async fn be_refused(client: &Client) -> anyhow::Result<()> {
    let admin = client.admin();
    loop {
        let again = admin.create_topic(TOPIC, PARTITIONS, TopicSettings::default());
        anyhow::ensure!(again.await.is_err(), "a topic was made twice");
        let unknown = admin.describe_group("nobody").await;
        anyhow::ensure!(unknown.is_err(), "a group is there that nobody made");
        sleep(PAUSE * 10).await;
    }
}
