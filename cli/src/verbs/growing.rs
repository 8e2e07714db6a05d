//! Partitions that a topic gains while `consume --follow` reads it: each is read too, from its beginning,
//! since all of its records came after the command.

use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt};
use ropewalk_client::{Client, Offset};
use tokio::time::sleep;

use super::span::Span;

/// How often topics are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is known of a topic that is followed.
struct Followed {
    client: Client,
    topic: String,
    /// Partitions below this are read already.
    partitions: u32,
}

/// The partitions a topic has from this one on, as they come. Never ends.
pub fn new_partitions(client: Client, topic: String, from: u32) -> impl Stream<Item = Span> {
    let followed = Followed {
        client,
        topic,
        partitions: from,
    };
    let looks = stream::unfold(followed, |mut followed| async move {
        sleep(LOOK_EVERY).await;
        let found = followed.look().await;
        Some((stream::iter(found), followed))
    });
    looks.flatten()
}

impl Followed {
    /// The partitions that came since the last look. What can't be asked now is asked again; a topic that is
    /// gone is left to those that read it.
    async fn look(&mut self) -> Vec<Span> {
        let Ok(Some(found)) = self.client.admin().topic(&self.topic).await else {
            return Vec::new();
        };
        let mut spans = Vec::new();
        let count = u32::try_from(found.partitions.len()).unwrap_or(u32::MAX);
        for partition in self.partitions..count {
            let place = self
                .client
                .offset(&self.topic, partition, Offset::Beginning);
            let Ok(start) = place.await else {
                break;
            };
            spans.push(Span {
                partition,
                start,
                end: None,
            });
            self.partitions = partition + 1;
        }
        spans
    }
}
