//! Positions and times turned into offsets.

use std::sync::Arc;

use ropewalk_proto::v1;
use ropewalk_proto::v1::list_offsets_request::Position;
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::Backoff;
use crate::client::{Client, Inner, bounded, timed_out};
use crate::error::{Error, Result};
use crate::metadata::unknown_partition;
use crate::record::Offset;

impl Client {
    /// The offset of a place in a partition, as its leader has it now.
    ///
    /// # Errors
    /// `UnknownTopic`, `UnknownPartition`, or what the cluster said if no leader could be asked
    /// within the client's request timeout.
    pub async fn offset(&self, topic: &str, partition: u32, place: Offset) -> Result<u64> {
        self.inner.offset(topic, partition, place).await
    }
}

impl Inner {
    pub async fn offset(
        self: &Arc<Self>,
        topic: &str,
        partition: u32,
        place: Offset,
    ) -> Result<u64> {
        self.expect_partition(topic, partition).await?;
        let position = match place {
            Offset::At(offset) => return Ok(offset),
            Offset::Beginning => Position::Beginning(true),
            Offset::End => Position::End(true),
            Offset::Time(time_ms) => Position::AtOrAfterMs(time_ms),
        };
        let request = v1::ListOffsetsRequest {
            topic: topic.to_owned(),
            partition,
            position: Some(position),
        };
        let deadline = Instant::now() + self.request_timeout;
        let mut backoff = Backoff::new(self.draw());
        loop {
            let error = match self.ask_offset(&request, deadline).await {
                Ok(offset) => return Ok(offset),
                Err(error) => error,
            };
            let pause = backoff.pause();
            if !error.is_retryable() || Instant::now() + pause >= deadline {
                return Err(
                    error.context(format_args!("asking for an offset of {topic}/{partition}"))
                );
            }
            sleep(pause).await;
        }
    }

    /// Makes sure that there is such a partition.
    async fn expect_partition(self: &Arc<Self>, topic: &str, partition: u32) -> Result<()> {
        let mut known = self.topic(topic).await?;
        if partition >= known.partitions() {
            known = self.refresh(topic).await?;
        }
        if partition >= known.partitions() {
            return Err(unknown_partition(topic, partition, known.partitions()));
        }
        Ok(())
    }

    async fn ask_offset(
        self: &Arc<Self>,
        request: &v1::ListOffsetsRequest,
        deadline: Instant,
    ) -> Result<u64> {
        let within = deadline.saturating_duration_since(Instant::now());
        let asking = async {
            let leader = self.leader(&request.topic, request.partition).await?;
            let mut node = self.connections.node(&leader.address)?;
            match node.list_offsets(bounded(request.clone(), within)).await {
                Ok(answer) => Ok(answer.into_inner().offset),
                Err(status) => {
                    self.metadata.not_leader(
                        &request.topic,
                        request.partition,
                        leader.node_id,
                        None,
                    );
                    Err(Error::from_status(&status, &leader.address))
                }
            }
        };
        timeout(within, asking)
            .await
            .unwrap_or_else(|_| Err(timed_out("the leader", within)))
    }
}
