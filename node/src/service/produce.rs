//! Batches from producers: checked, proposed in order of arrival, answered as they commit.

use ropewalk_proto::error::WireError;
use ropewalk_proto::v1;
use tracing::Instrument;

use super::{Api, check_internal, trace};
use crate::partition::{Appended, PendingAppend};

impl Api<'_> {
    /// Proposes one batch now, so that the order of calls is the order of the log. Returns the batch's later
    /// outcome.
    pub async fn produce(
        &self,
        request: v1::ProduceRequest,
    ) -> impl Future<Output = Result<Appended, v1::Error>> {
        let (topic, number) = (request.topic.clone(), request.partition);
        let span = trace::of_batch(&request);
        let proposed = self.propose(request);
        let proposed = proposed.instrument(trace::proposing(&span)).await;
        async move {
            let result = match proposed {
                Ok(ticket) => ticket.instrument(trace::committing(&span)).await,
                Err(error) => Err(error),
            };
            let offset = result.as_ref().map(|appended| appended.base_offset);
            trace::ended(&span, offset);
            result.map_err(|error| self.refusal(&topic, number, error))
        }
    }

    async fn propose(&self, request: v1::ProduceRequest) -> Result<PendingAppend, WireError> {
        check_internal(&request.topic)?;
        let (topic, topic_id) = (&request.topic, request.topic_id);
        let partition = self.serving.local(topic, topic_id, request.partition)?;
        self.serving.check_producer(&request.batch).await?;
        // The log decides whether the ring is too old: the batch may already be in it.
        partition.propose(request.ring_version, request.batch).await
    }
}
