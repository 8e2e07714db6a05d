//! Members of a consumer group, against a coordinator scripted by the test.

mod admin;
mod commits;
mod control;
mod rebalance;
mod run;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use ropewalk_client::{
    Client, Compression, Delivery, Rebalance, Subscription, SubscriptionBuilder,
};
use ropewalk_proto::batch::BatchBuilder;

use crate::fake::{Fake, GROUP, TOPIC, soon};

/// Adds one batch to a partition: records with these keys and the values 0, 1, 2 …
fn fill(fake: &Fake, partition: usize, keys: &[&str]) {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 22);
    for (value, key) in keys.iter().enumerate() {
        let (key, value) = (key.as_bytes(), value.to_string());
        assert!(
            builder
                .push(Some(key), Some(value.as_bytes()), &[], 7)
                .unwrap()
        );
    }
    fake.world().logs[partition].push(builder.build());
}

/// A subscription with frequent commits, so that tests need not wait, and a long session.
fn subscribe(client: &Client) -> SubscriptionBuilder {
    client
        .subscribe(GROUP)
        .topics([TOPIC])
        .auto_commit(Some(Duration::from_millis(10)))
}

async fn next(subscription: &mut Subscription) -> Delivery {
    soon(subscription.next()).await.unwrap().unwrap()
}

/// Takes the next deliveries, and checks that they are at these offsets of one partition.
async fn take(subscription: &mut Subscription, offsets: std::ops::Range<u64>) -> Vec<Delivery> {
    let mut taken = Vec::new();
    for offset in offsets {
        let delivery = next(subscription).await;
        assert_eq!(delivery.offset, offset);
        taken.push(delivery);
    }
    taken
}

/// Returns true if no delivery is ready or in flight.
fn nothing_comes(subscription: &mut Subscription) -> bool {
    subscription.next().now_or_never().is_none()
}

/// Events that a listener received.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>, Arc<tokio::sync::Notify>);

impl Told {
    fn listener(&self) -> impl Fn(&Rebalance) + Send + Sync + 'static {
        let told = self.clone();
        move |rebalance| {
            let names = |list: &[ropewalk_client::TopicPartition]| {
                let numbers = list.iter().map(|it| it.partition.to_string());
                numbers.collect::<Vec<_>>().join(" ")
            };
            let text = match rebalance {
                Rebalance::Assigned(list) => format!("assigned {}", names(list)),
                Rebalance::Revoked(list) => format!("revoked {}", names(list)),
                Rebalance::Lost(list) => format!("lost {}", names(list)),
                Rebalance::Disconnected(_) => "disconnected".into(),
                Rebalance::Reconnected => "reconnected".into(),
                Rebalance::Unreadable(place, _) => format!("unreadable {}", place.partition),
                Rebalance::Refused(error) => format!("refused: {error}"),
                Rebalance::TopicsMissing(topics) => format!("missing {}", topics.join(" ")),
                other => panic!("{other:?}"),
            };
            told.0.lock().push(text);
            told.1.notify_one();
        }
    }

    /// Waits until the listener has received exactly these events.
    async fn exactly(&self, expected: &[&str]) {
        let all = async {
            while self.0.lock().len() < expected.len() {
                self.1.notified().await;
            }
        };
        soon(all).await;
        assert_eq!(*self.0.lock(), expected);
    }
}
