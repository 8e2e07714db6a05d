//! Resolves positions and timestamps to offsets.

use std::sync::Arc;

use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::v1;
use ropewalk_proto::v1::list_offsets_request::Position;
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::Backoff;
use crate::client::{Client, Inner, bounded, timed_out};
use crate::error::{Error, Result};
use crate::metadata::PartitionId;
use crate::record::Offset;
use crate::telling::Telling;

impl Client {
    /// The offset of a position in a partition, as its leader has it now.
    ///
    /// # Errors
    /// `UnknownTopic`, `UnknownPartition`, or the error of the cluster if no leader answered within the
    /// client's request timeout.
    pub async fn offset(&self, topic: &str, partition: u32, place: Offset) -> Result<u64> {
        self.inner.offset(topic, partition, place).await
    }
}

impl Inner {
    /// The offset of a position in a partition of the topic that has this name now.
    pub async fn offset(
        self: &Arc<Self>,
        topic: &str,
        partition: u32,
        place: Offset,
    ) -> Result<u64> {
        let of = PartitionId::new(topic, 0, partition);
        self.place(of, place).await.map(|(_, offset)| offset)
    }

    /// The offset of a position in a partition, and the partition with the id of its topic.
    ///
    /// # Errors
    /// `TopicRecreated` if the caller gave a topic id, and a later topic has the name.
    pub async fn place(
        self: &Arc<Self>,
        mut of: PartitionId,
        place: Offset,
    ) -> Result<(PartitionId, u64)> {
        let by_name = of.topic_id == 0;
        self.pin(&mut of, by_name && matches!(place, Offset::At(_)))
            .await?;
        let position = match place {
            Offset::At(offset) => return Ok((of, offset)),
            Offset::Beginning => Position::Beginning(true),
            Offset::End => Position::End(true),
            Offset::TimestampMs(time_ms) => Position::AtOrAfterMs(time_ms),
        };
        let deadline = Instant::now() + self.request_timeout;
        let mut backoff = Backoff::new(self.draw());
        let mut failed = Telling::default();
        loop {
            let error = match self.ask_offset(&of, position, deadline).await {
                Ok(offset) => return Ok((of, offset)),
                Err(error) => error,
            };
            let recreated = error.code() == Some(ErrorCode::TopicRecreated);
            let pause = backoff.pause();
            let again = error.is_retryable() || by_name && recreated;
            let is_over = Instant::now() + pause >= deadline;
            if !again || is_over {
                let error = match again {
                    true => failed.add(error),
                    false => error,
                };
                return Err(error.context(format_args!("asking for an offset of {of}")));
            }
            if !recreated {
                failed.add(error);
            }
            sleep(pause).await;
            if recreated {
                of.topic_id = 0;
                self.pin(&mut of, true).await?;
            }
        }
    }

    /// Checks that the partition exists, and records the id of its topic. The cached topic may be out of
    /// date: `now` asks the cluster.
    async fn pin(self: &Arc<Self>, of: &mut PartitionId, now: bool) -> Result<()> {
        let from_before = self.metadata.known_topic(&of.topic).is_some();
        let mut known = self.topic(&of.topic).await?;
        if from_before && (now || known.expect(of).is_err()) {
            known = self.refresh(&of.topic).await?;
        }
        known.expect(of)?;
        of.topic_id = known.id;
        Ok(())
    }

    async fn ask_offset(
        self: &Arc<Self>,
        of: &PartitionId,
        position: Position,
        deadline: Instant,
    ) -> Result<u64> {
        let within = deadline.saturating_duration_since(Instant::now());
        let request = v1::ListOffsetsRequest {
            topic: of.topic.to_string(),
            topic_id: of.topic_id,
            partition: of.partition,
            position: Some(position),
        };
        let asking = async {
            let leader = self.leader(of).await?;
            let mut node = self.connections.node(&leader.address)?;
            match node.list_offsets(bounded(request, within)).await {
                Ok(answer) => Ok(answer.into_inner().offset),
                Err(status) => {
                    self.metadata.not_leader(of, leader.node_id, None);
                    Err(Error::from_status(&status, &leader.address))
                }
            }
        };
        timeout(within, asking)
            .await
            .unwrap_or_else(|_| Err(timed_out("the leader", within)))
    }
}
