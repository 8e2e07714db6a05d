//! Publishes events with keys, and prints the position of each.
//!
//! Needs a cluster, and a topic:
//!
//! ```sh
//! ropewalk dev &
//! export ROPEWALK_BOOTSTRAP=127.0.0.1:7101
//! ropewalk topic create flights --partitions 12
//! cargo run --release -p ropewalk-client --example producer
//! ```

use ropewalk_client::{Client, Compression, Record, Result};

const EVENTS: u32 = 20;

#[tokio::main]
async fn main() -> Result<()> {
    let client = Client::from_env().await?;
    let producer = client
        .producer("flights")
        .compression(Compression::Lz4)
        .build()
        .await?;

    // `send` waits for room only, so that the events share batches.
    let mut sent = Vec::new();
    for number in 0..EVENTS {
        let key = format!("N{}", 14_220 + number % 5);
        let event = Record::event("com.example.flight.departed")
            .key(key.clone())
            .content_type("application/json")
            .value(format!(r#"{{"number":{number}}}"#));
        sent.push((key, producer.send(event).await?));
    }

    // Each acknowledgement says where the event is, on the disks of a majority.
    for (key, pending) in sent {
        match pending.await {
            Ok(metadata) => println!("{key}: {}/{}", metadata.partition, metadata.offset),
            Err(error) if error.outcome_unknown() => println!("{key}: unknown: {error}"),
            Err(error) => println!("{key}: not published: {error}"),
        }
    }
    producer.close().await
}
