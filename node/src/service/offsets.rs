//! Lookups of offsets by position and time, and of the records behind them.

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::list_offsets_request::Position as Asked;

use super::Api;
use crate::coordinator::check_places;
use crate::partition::Position;

impl Api<'_> {
    /// Finds the offset of a position in a partition.
    pub async fn list_offsets(
        &self,
        request: v1::ListOffsetsRequest,
    ) -> Result<v1::ListOffsetsResponse, WireError> {
        let position = match request.position {
            Some(Asked::Beginning(_)) => Position::Beginning,
            Some(Asked::End(_)) => Position::End,
            Some(Asked::AtOrAfterMs(time_ms)) => Position::AtOrAfter(time_ms),
            None => {
                return Err(WireError::new(
                    ErrorCode::InvalidRequest,
                    "position is missing; ask for the beginning, the end, or a time",
                ));
            }
        };
        let (topic, topic_id) = (&request.topic, request.topic_id);
        let partition = self.serving.local(topic, topic_id, request.partition)?;
        let found = partition.list_offset(position).await?;
        Ok(v1::ListOffsetsResponse {
            offset: found.offset,
            timestamp_ms: found.timestamp_ms,
            leader_epoch: found.epoch,
        })
    }

    /// Counts the records behind offsets of partitions that this node leads.
    pub async fn backlog(
        &self,
        request: v1::BacklogRequest,
    ) -> Result<v1::BacklogResponse, WireError> {
        check_places(request.from.len())?;
        Ok(self.serving.coordinator.backlog(request).await)
    }
}
