//! Publishing of single records, for programs that publish rarely and need no producer.

use ropewalk_proto::v1;
use tonic::Status;

use crate::client::{Client, Idempotency, bounded};
use crate::connections::Node;
use crate::error::Result;
use crate::record::{Record, RecordMetadata};

impl Client {
    /// Publishes one record and waits for its acknowledgement. Any node accepts it, chooses the partition by
    /// the key, and forwards it to the leader.
    ///
    /// This is slower than a [`crate::Producer`], and not idempotent. The client retries only if the first
    /// try is known to have failed.
    ///
    /// # Errors
    /// The error of the cluster. With [`crate::Error::outcome_unknown`] the record may be published.
    pub async fn publish(&self, topic: &str, record: Record) -> Result<RecordMetadata> {
        let record = record.complete(&self.inner);
        let timestamp_ms = record
            .timestamp_ms
            .unwrap_or_else(|| self.inner.clock.now_ms());
        let headers = record.headers.into_iter().map(|header| v1::Header {
            key: header.key,
            value: header.value.unwrap_or_default(),
        });
        let request = v1::PublishRequest {
            ring_version: 0,
            topic: topic.to_owned(),
            key: record.key,
            value: record.value,
            headers: headers.collect(),
            timestamp_ms: Some(timestamp_ms),
            partition: record.partition,
            // Any topic that has the name when the record arrives.
            topic_id: 0,
        };
        let call = |mut node: Node, within| {
            let request = bounded(request.clone(), within);
            async move { node.publish(request).await.map_err(|status: Status| status) }
        };
        let answer = self
            .inner
            .call("publishing a record", Idempotency::OnlyOnce, call)
            .await?;
        Ok(RecordMetadata {
            partition: answer.partition,
            offset: answer.offset,
            timestamp_ms,
        })
    }
}
