//! A program of a user. `make outside` builds it as users do: without the workspace's flags and features.

use ropewalk_client::{Client, Record};

#[tokio::main]
async fn main() -> ropewalk_client::Result<()> {
    let client = Client::connect("127.0.0.1:7101").await?;
    let producer = client.producer("flights").build().await?;
    let pending = producer
        .send(Record::new().key("N14228").value("took off"))
        .await?;
    let metadata = pending.await?;
    println!("partition {}, offset {}", metadata.partition, metadata.offset);
    producer.close().await
}
