//! Single records, for callers without a batching client. Any node accepts them, chooses the partition, and
//! forwards them to the leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_machines::meta::view::TopicImage;
use ropewalk_proto::batch::{BatchBuilder, Compression, Header};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::partitioner::Partitioner;
use ropewalk_proto::trace::TraceContext;
use ropewalk_proto::v1;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::forward::{self, Route};
use super::{Api, MAX_REQUEST_BYTES, check_internal, trace, unknown_partition};

/// Maximum time that a record waits until this node learns of its topic's next ring, or of the topic that
/// took over the name.
const RING_WITHIN: Duration = Duration::from_secs(10);
const RING_RETRY: Duration = Duration::from_millis(50);

/// Maximum number of cached mappings; further ones evict others.
const MAPPINGS: usize = 64;

/// Mappings of keys to partitions in use, cached since a ring is costly to build.
#[derive(Debug, Default)]
pub struct Router {
    mappings: Mutex<BTreeMap<(i32, u32), Arc<Partitioner>>>,
    keyless: AtomicU32,
}

impl Router {
    fn partition(&self, topic: &TopicImage, key: Option<&[u8]>) -> Result<u32, WireError> {
        let count = topic.ring_partitions.max(1);
        let Some(key) = key else {
            return Ok(self.keyless.fetch_add(1, Ordering::Relaxed) % count);
        };
        let mapping = self.mapping((topic.settings.partitioner, count), || {
            Partitioner::of_settings(&topic.settings, count)
        })?;
        Ok(mapping.partition(key))
    }

    fn mapping(
        &self,
        key: (i32, u32),
        build: impl FnOnce() -> Result<Partitioner, WireError>,
    ) -> Result<Arc<Partitioner>, WireError> {
        let mut mappings = self.mappings.lock();
        if let Some(known) = mappings.get(&key) {
            return Ok(known.clone());
        }
        let mapping = Arc::new(build()?);
        if mappings.len() >= MAPPINGS {
            mappings.pop_first();
        }
        mappings.insert(key, mapping.clone());
        Ok(mapping)
    }
}

impl Api<'_> {
    /// Writes one record, on the leader of its partition.
    pub async fn publish(
        &self,
        record: v1::PublishRequest,
        route: Route,
        trace: Option<TraceContext>,
    ) -> Result<v1::PublishResponse, WireError> {
        let span = match &trace {
            Some(trace) => trace::of_record(trace, &record),
            None => Span::none(),
        };
        let published = self.publish_until_routed(record, route, trace);
        let published = published.instrument(span.clone()).await;
        trace::ended(&span, published.as_ref().map(|published| published.offset));
        published
    }

    async fn publish_until_routed(
        &self,
        record: v1::PublishRequest,
        route: Route,
        trace: Option<TraceContext>,
    ) -> Result<v1::PublishResponse, WireError> {
        check_internal(&record.topic)?;
        let deadline = Instant::now() + RING_WITHIN;
        loop {
            match self.publish_once(record.clone(), route, &trace).await {
                Err(error) if route == Route::Anywhere && self.is_early(&record, &error) => {
                    if Instant::now() + RING_RETRY >= deadline {
                        return Err(error);
                    }
                    tokio::time::sleep(RING_RETRY).await;
                }
                done => return done,
            }
        }
    }

    /// True for a record that was not written because a node has yet to learn of its ring or topic.
    fn is_early(&self, record: &v1::PublishRequest, error: &WireError) -> bool {
        match error.code {
            ErrorCode::StaleRing => record.partition.is_none() && record.key.is_some(),
            ErrorCode::TopicRecreated => record.topic_id == 0,
            ErrorCode::UnknownTopic => self.serving.view().topics.contains_key(&record.topic),
            _ => false,
        }
    }

    async fn publish_once(
        &self,
        mut record: v1::PublishRequest,
        route: Route,
        trace: &Option<TraceContext>,
    ) -> Result<v1::PublishResponse, WireError> {
        let cluster = &self.serving.cluster;
        let view = self.serving.view();
        let topic = view.meant(&record.topic, record.topic_id)?;
        // The partition belongs to this topic, on whichever node the record is written.
        record.topic_id = topic.id.0;
        let number = match record.partition {
            Some(number) => number,
            None => {
                let by_key = record.key.is_some();
                record.ring_version = if by_key { topic.ring_version } else { 0 };
                let router = &self.serving.router;
                router.partition(topic, record.key.as_deref())?
            }
        };
        record.partition = Some(number);
        let group = topic
            .partitions
            .get(number as usize)
            .map(|partition| partition.group)
            .ok_or_else(|| unknown_partition(&record.topic, number))?;
        let leader = cluster.leaders().get(group).map(|told| told.node);
        let node = leader.and_then(|leader| view.nodes.get(&leader));
        match node {
            Some(node) if node.id != cluster.node_id() && route == Route::Anywhere => {
                let channel = self.serving.peers.channel(&node.address);
                forward::publish(channel, record, trace.clone()).await
            }
            _ => self.append(record, number).await,
        }
    }

    async fn append(
        &self,
        record: v1::PublishRequest,
        number: u32,
    ) -> Result<v1::PublishResponse, WireError> {
        let serving = self.serving;
        let partition = serving.local(&record.topic, record.topic_id, number)?;
        let now_ms = || serving.cluster.clock().now_ms();
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(now_ms);
        let headers: Vec<Header> = record
            .headers
            .into_iter()
            .map(|header| Header {
                key: header.key,
                value: Some(header.value),
            })
            .collect();
        let mut batch = BatchBuilder::new(Compression::None, MAX_REQUEST_BYTES);
        let fits = batch
            .push(
                record.key.as_deref(),
                record.value.as_deref(),
                &headers,
                timestamp_ms,
            )
            .map_err(|error| WireError::new(error.code(), error.to_string()))?;
        if !fits {
            return Err(WireError::new(
                ErrorCode::TooLarge,
                format!("record exceeds {MAX_REQUEST_BYTES} bytes; publish it in parts"),
            ));
        }
        let appended = partition
            .propose(record.ring_version, batch.build())
            .await?
            .await?;
        Ok(v1::PublishResponse {
            partition: number,
            offset: appended.base_offset,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_kept_and_never_more_than_there_is_room_for() {
        let router = Router::default();
        let build = |count| move || Partitioner::of_settings(&v1::TopicSettings::default(), count);
        for count in 1..=3 * MAPPINGS as u32 {
            let mapping = router.mapping((1, count), build(count)).unwrap();
            assert_eq!(mapping.partitions(), count);
        }
        assert_eq!(router.mappings.lock().len(), MAPPINGS);
        let last = 3 * MAPPINGS as u32;
        let known = router.mapping((1, last), || panic!("it is kept"));
        assert_eq!(known.unwrap().partitions(), last);
    }
}
