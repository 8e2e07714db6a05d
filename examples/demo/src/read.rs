//! Reads the published records back.

use std::time::Duration;

use anyhow::Context;
use futures_util::TryStreamExt;
use ropewalk_client::{Client, ConsumedRecord, Offset};
use tokio::time::timeout;

use crate::check::{Place, ReadBack};
use crate::publish::ROW_HEADER;

/// Maximum wait for an existing record.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads all records of the first `partitions` partitions of the topic, each partition in order.
pub async fn everything(
    client: &Client,
    topic: &str,
    partitions: u32,
) -> anyhow::Result<Vec<ReadBack>> {
    let mut read = Vec::new();
    for partition in 0..partitions {
        let end = client.offset(topic, partition, Offset::End).await?;
        let mut next = client.offset(topic, partition, Offset::Beginning).await?;
        let reader = client.reader(topic, partition).from(Offset::At(next));
        let mut reader = reader.build().await?;
        while next < end {
            let record = timeout(PATIENCE, reader.try_next()).await;
            let record = record.with_context(|| {
                format!("{topic}/{partition} does not give record {next}, and ends at {end}")
            })??;
            let record = record.context("a reader ended before its partition")?;
            next = record.offset + 1;
            read.push(read_back(record)?);
        }
    }
    Ok(read)
}

fn read_back(record: ConsumedRecord) -> anyhow::Result<ReadBack> {
    let header = record
        .headers
        .iter()
        .find(|header| header.key == ROW_HEADER);
    let row = header.and_then(|header| {
        let text = std::str::from_utf8(header.value.as_deref()?).ok()?;
        text.parse().ok()
    });
    Ok(ReadBack {
        place: Place {
            partition: record.partition,
            offset: record.offset,
        },
        key: record.key.map(|key| key.to_vec()),
        value: record.value.map(|value| value.to_vec()).unwrap_or_default(),
        row: row.context("a record without its number")?,
    })
}
