//! Batches for readers.

use std::time::Duration;

use ropewalk_proto::batch::BatchView;
use ropewalk_proto::error::WireError;
use ropewalk_proto::v1;

use super::Api;
use super::filtered::{self, LastFilter};
use crate::env::Remote;
use crate::filter::Origin;
use crate::guard::{Held, Room};
use crate::partition::{FetchSpec, Fetched, LEAST_READ_BYTES, Partition};

/// Room that answers take before anything is read for them, and the remote end that they are charged to.
#[derive(Debug, Clone)]
pub struct AnswerRoom<'a> {
    /// Room of all answers.
    pub room: &'a Room,
    /// Reader's end of the connection.
    pub remote: Option<Remote>,
}

/// Batches for one fetch.
pub struct Batches {
    /// Batches, and bounds of the partition.
    pub fetched: Fetched,
    /// With a filter: the next offset to read from.
    pub next_offset: Option<u64>,
    /// Room that the answer holds until it is sent. `None` if nothing was read.
    pub held: Option<Held>,
}

impl Api<'_> {
    /// Reads batches, and waits for some up to the time in the request.
    pub async fn fetch(
        &self,
        request: &v1::FetchRequest,
        last: &LastFilter,
        room: AnswerRoom<'_>,
    ) -> Result<Batches, v1::Error> {
        let batches = self.try_fetch(request, last, room).await;
        batches.map_err(|error| self.refusal(&request.topic, request.partition, error))
    }

    async fn try_fetch(
        &self,
        request: &v1::FetchRequest,
        last: &LastFilter,
        AnswerRoom { room, remote }: AnswerRoom<'_>,
    ) -> Result<Batches, WireError> {
        let serving = self.serving;
        let partition = serving.local(&request.topic, request.topic_id, request.partition)?;
        let filter = last.get(&request.filter)?;
        let max_wait_ms = u64::from(request.max_wait_ms).min(serving.limits.fetch_wait_ms);
        let spec = FetchSpec {
            offset: request.offset,
            max_bytes: (request.max_bytes as usize).min(serving.limits.fetch_bytes),
            max_wait: Duration::from_millis(max_wait_ms),
            last_epoch: request.leader_epoch,
        };
        // One batch is returned even if it is larger.
        let batch_bytes = serving.batch_bytes(&request.topic);
        let bytes = spec.max_bytes.max(LEAST_READ_BYTES).max(batch_bytes);
        let hold = || room.hold(bytes, remote.clone());
        let (mut fetched, mut held) = partition.fetch_held(spec, hold).await?;
        let next_offset = match &filter {
            Some(filter) => {
                let origin = Origin {
                    topic: &request.topic,
                    partition: request.partition,
                };
                let from = request.offset;
                Some(filtered::apply(serving, filter, origin, from, &mut fetched).await?)
            }
            None => None,
        };
        count(&partition, &fetched);
        if let Some(held) = &mut held {
            held.shrink(fetched.batches.iter().map(|(.., batch)| batch.len()).sum());
        }
        Ok(Batches {
            fetched,
            next_offset,
            held,
        })
    }
}

/// Counts the records and bytes that a reader gets.
fn count(partition: &Partition, fetched: &Fetched) {
    let (mut records, mut bytes) = (0, 0);
    for (.., batch) in &fetched.batches {
        bytes += batch.len() as u64;
        // Only the header of a batch is read.
        let count = BatchView::trusted(batch.clone()).map_or(0, |batch| batch.record_count());
        records += u64::from(count.unsigned_abs());
    }
    let traffic = partition.traffic();
    traffic.fetched_records.add(records);
    traffic.fetched_bytes.add(bytes);
}
