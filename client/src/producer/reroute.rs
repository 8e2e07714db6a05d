//! A topic's keys were mapped anew: whatever was routed by the old ring and is not written yet
//! is routed again, before anything that comes later, so that the records of a key keep their order.

use std::sync::Arc;

use futures_util::future::join_all;
use ropewalk_proto::batch::{BatchError, BatchView};
use tokio::time::{Instant, sleep};

use super::batch::{Batch, Choice, NewRecord};
use super::handle::Surrendered;
use super::shared::{Routing, Shared, handles};
use super::ticket::{Completion, Place};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::Topic;
use crate::record::Record;

impl Shared {
    /// Whether a topic's ring is newer than the one records are routed by; rings are counted up.
    pub fn is_newer(&self, topic: &Topic) -> bool {
        let routing = self.routing.read();
        routing.moving
            || topic.partitioner.ring_version() > routing.topic.partitioner.ring_version()
    }

    /// The ring records are routed by is an old one. Routing stops until the new ring is in place.
    pub fn ring_is_stale(self: &Arc<Self>) {
        let mut routing = self.routing.write();
        if routing.moving {
            return;
        }
        routing.moving = true;
        self.open.send_replace(false);
        tokio::spawn(move_all(self.clone()));
    }
}

async fn move_all(shared: Arc<Shared>) {
    let work = async {
        let topic = new_ring(&shared).await;
        let lanes = shared.routing.read().lanes.clone();
        let surrendered = join_all(lanes.iter().map(|lane| lane.surrender())).await;
        (topic, surrendered.into_iter().flatten().collect::<Vec<_>>())
    };
    let (topic, surrendered) = tokio::select! {
        done = work => done,
        // The lanes end by themselves and fail what they have.
        () = shared.stop.cancelled() => return,
    };
    {
        let mut routing = shared.routing.write();
        match topic {
            Ok(topic) => shared.route_again(&mut routing, topic, surrendered),
            Err(error) => surrendered.iter().for_each(|one| one.batch.fail(&error)),
        }
        routing.moving = false;
    }
    shared.open.send_replace(true);
}

/// The topic as it is after the change.
async fn new_ring(shared: &Shared) -> Result<Arc<Topic>> {
    let old = shared.routing.read().topic.partitioner.ring_version();
    let deadline = Instant::now() + shared.settings.delivery_timeout;
    let mut backoff = Backoff::new(shared.inner.draw());
    loop {
        let why = match shared.inner.refresh(&shared.topic).await {
            Ok(topic) if topic.partitioner.ring_version() > old => return Ok(topic),
            Ok(_) => format!("every node asked still tells of ring version {old}"),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "topic {:?} maps its keys anew, and how could not be learned: {why}",
                    shared.topic
                ),
            ));
        }
        sleep(backoff.pause()).await;
    }
}

impl Shared {
    fn route_again(
        self: &Arc<Self>,
        routing: &mut Routing,
        topic: Arc<Topic>,
        surrendered: Vec<Surrendered>,
    ) {
        let before = u32::try_from(routing.lanes.len()).unwrap_or(u32::MAX);
        routing
            .lanes
            .extend(handles(before..topic.partitions(), self.shape));
        routing.topic = topic;
        for Surrendered {
            partition,
            mut batch,
            bytes,
        } in surrendered
        {
            let view = BatchView::trusted(bytes);
            match view.and_then(|view| self.places(routing, partition, &mut batch, &view)) {
                Ok(places) => batch.completion.move_to(places),
                // This client built it; it unpacks as it was packed.
                Err(error) => batch.fail(&Error::new(ErrorKind::Corrupt, error.to_string())),
            }
        }
    }

    /// Puts each record of a batch where it belongs now.
    fn places(
        self: &Arc<Self>,
        routing: &Routing,
        partition: u32,
        batch: &mut Batch,
        view: &BatchView,
    ) -> std::result::Result<Vec<Place>, BatchError> {
        let records = view.records(self.shape.max_batch_bytes)?;
        let partitioner = &routing.topic.partitioner;
        let choice = Choice::ByRing(partitioner.ring_version());
        let mut memory = batch.release_memory();
        let places = records.into_iter().map(|record| {
            let partition = record
                .key
                .as_ref()
                .map_or(partition, |key| partitioner.partition(key));
            let record = NewRecord {
                record: Record {
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                    ..Record::default()
                },
                timestamp_ms: record.timestamp_ms,
                since: Some(batch.since),
            };
            let mut part = memory.split(record.record.memory_bytes());
            self.push(routing, partition, &record, choice, &mut part)
                .unwrap_or_else(|error| failed(partition, error))
        });
        Ok(places.collect())
    }
}

/// The place of a record that has none.
fn failed(partition: u32, error: Error) -> Place {
    let completion = Completion::new(partition);
    completion.settle(Err(error));
    Place {
        completion,
        index: 0,
    }
}
