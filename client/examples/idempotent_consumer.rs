//! Processes each event of a topic once, although records may be delivered again after a crash, and producers
//! may publish an event twice.
//!
//! Needs a cluster, and a topic with events, as the example `producer` writes them:
//!
//! ```sh
//! export ROPEWALK_BOOTSTRAP=127.0.0.1:7101
//! cargo run --release -p ropewalk-client --example idempotent_consumer
//! ```

use std::num::NonZeroUsize;
use std::sync::Arc;

use ropewalk_client::{Client, Deduplicator, Delivery, Error, FileDedupStore, RunError};

/// Ids that are remembered: more than the events that can be delivered again.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(99_999);
/// File of the ids. One process at a time may use it.
const FILE: &str = "processed.ids";

/// Effect that must not happen twice. Where that is worth a transaction, implement `DedupStore` in the
/// database of the effect instead.
async fn charge(delivery: &Delivery) -> Result<(), Error> {
    let value = delivery.value.as_deref().unwrap_or_default();
    println!("charged for {}", String::from_utf8_lossy(value));
    Ok(())
}

async fn process(delivery: Delivery, done: &Deduplicator<FileDedupStore>) -> Result<(), Error> {
    let Some(id) = delivery.event_id() else {
        // Without an id there is nothing to remember.
        return charge(&delivery).await;
    };
    match done.once(id.as_bytes(), charge(&delivery)).await? {
        // Makes the id survive a power failure before the record is committed.
        Some(()) => done.sync().await,
        None => {
            println!("skipped event {id}: it was processed before");
            Ok(())
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), RunError<Error>> {
    let client = Client::from_env().await?;
    let store = FileDedupStore::open(FILE, REMEMBERED).await?;
    let done = Arc::new(Deduplicator::new(store));
    let subscription = client
        .subscribe("charging")
        .topics(["flights"])
        .build()
        .await?;

    let stop = subscription.handle();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.shutdown();
        }
    });
    let handler = move |delivery| {
        let done = done.clone();
        async move { process(delivery, &done).await }
    };
    subscription.run_concurrent(8, handler).await
}
