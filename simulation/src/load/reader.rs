//! Readers: one that follows a partition from its beginning and goes on from where it stood
//! whatever happens, and one that reads everything there is once.

use std::time::Duration;

use futures_util::StreamExt;
use ropewalk_client::{ConsumedRecord, Offset};
use tokio::time::timeout;

use super::{Clients, TOPIC, name_of, until_done};
use crate::history::{Event, RecordName};

/// One record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its offset.
    pub offset: u64,
    /// Whose it is.
    pub name: RecordName,
    /// Its key.
    pub key: u32,
}

/// Follows a partition until the run ends.
pub async fn follow(clients: Clients, partition: u32) -> turmoil::Result {
    let client = clients.connect(1_000 + u64::from(partition)).await;
    let mut next = 0;
    loop {
        let mut reader = until_done("beginning to read", || {
            let place = Offset::At(next);
            client.reader(TOPIC, partition).from(place).build()
        })
        .await;
        while let Some(Ok(record)) = reader.next().await {
            let Found { offset, name, key } = found(&record)?;
            next = offset + 1;
            clients.history.add(Event::Read {
                reader: partition,
                partition,
                offset,
                name,
                key,
            });
        }
    }
}

/// Reads a partition from its beginning to its end.
pub async fn read_all(clients: &Clients, partition: u32) -> Result<Vec<Found>, String> {
    let client = clients.connect(2_000 + u64::from(partition)).await;
    let mut all = Vec::new();
    let mut reader = until_done("beginning to read", || {
        client
            .reader(TOPIC, partition)
            .from(Offset::Beginning)
            .build()
    })
    .await;
    let end = until_done("asking for the end", || {
        client.offset(TOPIC, partition, Offset::End)
    })
    .await;
    while reader.position() < end {
        let record = timeout(Duration::from_secs(30), reader.next()).await;
        let record = record.map_err(|_| format!("nothing came after {}", reader.position()))?;
        let record = record
            .ok_or("the reader ended")?
            .map_err(|error| error.to_string())?;
        all.push(found(&record)?);
    }
    Ok(all)
}

fn found(record: &ConsumedRecord) -> Result<Found, String> {
    let phantom = || format!("offset {}: nobody sent {record:?}", record.offset);
    let name = record.value.as_deref().and_then(name_of);
    let key = record
        .key
        .as_deref()
        .and_then(|key| std::str::from_utf8(key).ok());
    let key = key.and_then(|key| key.strip_prefix("key-")?.parse().ok());
    Ok(Found {
        offset: record.offset,
        name: name.ok_or_else(phantom)?,
        key: key.ok_or_else(phantom)?,
    })
}
