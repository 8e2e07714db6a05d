//! Handles events in spans, and publishes events that name their cause. Then `ropewalk trace` prints the path
//! of an event across both topics.
//!
//! Needs a cluster, and a topic with events, as the example `producer` writes them:
//!
//! ```sh
//! export ROPEWALK_BOOTSTRAP=127.0.0.1:7101
//! ropewalk topic create bags --partitions 12
//! cargo run --release -p ropewalk-client --example tracing
//! ropewalk trace ID                             # with a correlation_id that it printed
//! ```
//!
//! With the feature `opentelemetry` and a layer of `tracing-opentelemetry`, the spans of the handlers continue
//! the traces of the producers.

use ropewalk_client::{Client, Delivery, Error, Producer, Record, RunError};
use tracing_subscriber::fmt::format::FmtSpan;

/// Handles one event. The client runs it in a span named `process`, which has the ids of the event.
async fn unload(delivery: Delivery, bags: &Producer) -> Result<(), Error> {
    let key = delivery.key.clone().unwrap_or_default();
    // The event gets the correlation id of the handled one, and its id as the cause.
    let unloaded = Record::event("com.example.bags.unloaded")
        .key(key)
        .value("61");
    let metadata = bags.send(unloaded).await?.await?;
    let (partition, offset) = (metadata.partition, metadata.offset);
    tracing::info!(partition, offset, "unloaded");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), RunError<Error>> {
    tracing_subscriber::fmt()
        .with_span_events(FmtSpan::CLOSE)
        .init();
    // The source of the events that this client publishes.
    let builder = ropewalk_client::ClientBuilder::from_env()?.source("/gates/61");
    let client: Client = builder.connect().await?;
    let bags = client.producer("bags").build().await?;
    let subscription = client
        .subscribe("baggage")
        .topics(["flights"])
        .build()
        .await?;

    let stop = subscription.handle();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.shutdown();
        }
    });
    let handler = {
        let bags = bags.clone();
        move |delivery| {
            let bags = bags.clone();
            async move { unload(delivery, &bags).await }
        }
    };
    subscription.run_concurrent(8, handler).await?;
    Ok(bags.close().await?)
}
