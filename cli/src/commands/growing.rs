//! Partitions that topics gain while `consume --follow` reads them. Each is read from its beginning, since
//! all of its records are newer than the command.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt};
use ropewalk_client::{Client, Offset, TopicInfo};
use tokio::time::sleep;

use super::range::OffsetRange;

/// Interval between two checks of the topics.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Followed topics, with their known partitions.
struct Followed {
    client: Client,
    /// Partition counts of the topics: partitions below the count are already read.
    partitions: BTreeMap<Arc<str>, u32>,
}

/// Partitions that these topics gain beyond the given counts, as they appear. Never ends.
pub fn new_partitions(
    client: Client,
    partitions: BTreeMap<Arc<str>, u32>,
) -> impl Stream<Item = (Arc<str>, OffsetRange)> {
    let followed = Followed { client, partitions };
    let looks = stream::unfold(followed, |mut followed| async move {
        sleep(LOOK_EVERY).await;
        let found = followed.look().await;
        Some((stream::iter(found), followed))
    });
    looks.flatten()
}

impl Followed {
    /// Partitions added since the last check. The next check repeats a failed request. The reader of a
    /// deleted topic reports the deletion itself.
    async fn look(&mut self) -> Vec<(Arc<str>, OffsetRange)> {
        let topics = self.topics().await;
        let mut ranges = Vec::new();
        for (name, from) in &mut self.partitions {
            let Some(topic) = topics.iter().find(|topic| topic.name == **name) else {
                continue;
            };
            let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
            for partition in *from..count {
                let place = self.client.offset(name, partition, Offset::Beginning);
                let Ok(start) = place.await else {
                    break;
                };
                let end = None;
                let range = OffsetRange {
                    partition,
                    start,
                    end,
                };
                ranges.push((name.clone(), range));
                *from = partition + 1;
            }
        }
        ranges
    }

    /// The followed topics, with one request for all of them.
    async fn topics(&self) -> Vec<TopicInfo> {
        let admin = self.client.admin();
        match self.partitions.first_key_value() {
            Some((only, _)) if self.partitions.len() == 1 => {
                let found = admin.topic(only).await.ok().flatten();
                found.into_iter().collect()
            }
            _ => admin.topics().await.unwrap_or_default(),
        }
    }
}
