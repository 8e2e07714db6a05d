//! Consumes a topic as a member of a group, until Ctrl-C. Start it several times: the members share the
//! partitions.
//!
//! Needs a cluster, and a topic with records, as the example `producer` writes them:
//!
//! ```sh
//! export ROPEWALK_BOOTSTRAP=127.0.0.1:7101
//! cargo run --release -p ropewalk-client --example group
//! ```

use ropewalk_client::{Client, Delivery, Error, Rebalance, RunError};

/// Handlers that may run at the same time. Records with the same key are handled one after another.
const HANDLERS: usize = 8;

/// Processes one record. After `Ok`, commits may pass it. An error ends the subscription, and the record is
/// delivered again.
async fn process(delivery: Delivery) -> Result<(), Error> {
    let value = delivery.value.as_deref().unwrap_or_default();
    println!(
        "{}/{} offset {}: {}",
        delivery.topic(),
        delivery.partition,
        delivery.offset,
        String::from_utf8_lossy(value)
    );
    Ok(())
}

/// Reports changes of the assignment. It must return soon.
fn report(event: &Rebalance) {
    match event {
        Rebalance::Assigned(partitions) => println!("assigned: {} partitions", partitions.len()),
        Rebalance::Revoked(partitions) => println!("revoked: {} partitions", partitions.len()),
        Rebalance::Lost(partitions) => println!("lost: {} partitions", partitions.len()),
        other => println!("{other:?}"),
    }
}

#[tokio::main]
async fn main() -> Result<(), RunError<Error>> {
    let client = Client::from_env().await?;
    let subscription = client
        .subscribe("billing")
        .topics(["flights"])
        .on_rebalance(report)
        .build()
        .await?;

    // After `shutdown`, running handlers finish, their records are committed, and the member leaves.
    let stop = subscription.handle();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.shutdown();
        }
    });
    subscription.run_concurrent(HANDLERS, process).await
}
