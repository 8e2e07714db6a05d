//! Reads all records of a topic, without a group: from the beginning of each partition to its current end.
//!
//! Needs a cluster, and a topic with records, as the example `producer` writes them:
//!
//! ```sh
//! export ROPEWALK_BOOTSTRAP=127.0.0.1:7101
//! cargo run --release -p ropewalk-client --example read_topic -- flights
//! ```

use std::error::Error;

use ropewalk_client::{Client, Offset, OnTrimmed};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1);
    let name = name.unwrap_or_else(|| "flights".to_owned());
    let client = Client::from_env().await?;
    let found = client.admin().topic(&name).await?;
    let topic = found.ok_or_else(|| format!("there is no topic {name:?}"))?;

    for one in &topic.partitions {
        let partition = one.partition;
        let end = client.offset(&name, partition, Offset::End).await?;
        let reader = client.reader(&name, partition).from(Offset::Beginning);
        // Retention may remove the first records meanwhile.
        let reader = reader.on_trimmed(OnTrimmed::SkipToBeginning);
        let mut reader = reader.build().await?;
        while let Some(record) = reader.next_before(end).await {
            let record = record?;
            let text = |bytes: Option<&[u8]>| match bytes {
                Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                None => "-".to_owned(),
            };
            println!(
                "{partition}/{} {} {} {}",
                record.offset,
                record.timestamp_ms,
                text(record.key.as_deref()),
                text(record.value.as_deref())
            );
        }
    }
    Ok(())
}
