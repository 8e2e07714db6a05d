//! Rerouting after a change of the topic. If the topic has a new ring, unwritten records that the old ring
//! routed are routed again. They go before all later records, so that the records of a key keep their order.
//!
//! If the topic was deleted and created again, records routed to the old topic fail, even those that were
//! never sent. Their callers have not decided that they belong in the new topic. Some may have been written
//! to the old one, and partitions that callers chose have another meaning now. Later records go to the new
//! topic, under a new producer id, so no leftover of the old topic can pass for them.

use std::sync::Arc;

use futures_util::future::join_all;
use ropewalk_proto::batch::{BatchError, BatchView};
use ropewalk_proto::error::ErrorCode;
use tokio::time::{Instant, sleep};

use super::batch::{Batch, Choice, NewRecord};
use super::handle::{Handle, ReclaimedBatch};
use super::identity::{self, Identity};
use super::pending::BatchSlot;
use super::shared::{Routing, Shared, handles};
use super::split::UNPACKED_BYTES;
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::Topic;

impl Shared {
    /// True for a newer topic than the one that records are routed to, and for a newer ring of it.
    pub fn is_newer(&self, topic: &Topic) -> bool {
        let routing = self.routing.read();
        routing.moving || topic.follows(&routing.topic)
    }

    /// Handles a stale ring or topic: pauses routing until the new one is in place.
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

/// Result of a lookup of the topic.
enum Change {
    Ring(Arc<Topic>, Vec<ReclaimedBatch>),
    Topic(Arc<Topic>, Identity),
    /// The change could not be determined.
    Unknown(Error, Vec<ReclaimedBatch>),
}

async fn move_all(shared: Arc<Shared>) {
    let change = tokio::select! {
        change = change(&shared) => change,
        // The lanes end by themselves, and fail their batches.
        () = shared.stop.cancelled() => return,
    };
    {
        let mut routing = shared.routing.write();
        match change {
            Change::Ring(topic, reclaimed) => {
                shared.route_again(&mut routing, topic, reclaimed);
            }
            Change::Topic(topic, identity) => {
                routing.lanes = handles(0..topic.partitions(), shared.shape, &shared.rules);
                shared.rules.learn(&topic);
                routing.identity = identity;
                routing.topic = topic;
            }
            Change::Unknown(error, reclaimed) => {
                reclaimed.iter().for_each(|one| one.batch.fail(&error));
            }
        }
        routing.moving = false;
    }
    shared.open.send_replace(true);
}

/// Finds out the change, and takes from the lanes the batches that no longer belong there.
async fn change(shared: &Shared) -> Change {
    let topic = new_topic(shared).await;
    let (lanes, id) = {
        let routing = shared.routing.read();
        (routing.lanes.clone(), routing.topic.id)
    };
    let error = match topic {
        Ok(topic) if topic.id == id => {
            return Change::Ring(topic, reclaim(&lanes).await);
        }
        Ok(topic) => match identity::new(&shared.inner).await {
            Ok(identity) => {
                let gone = is_gone(&shared.topic);
                join_all(lanes.iter().map(|lane| lane.end(&gone))).await;
                return Change::Topic(topic, identity);
            }
            Err(error) => error,
        },
        Err(error) => error,
    };
    Change::Unknown(error, reclaim(&lanes).await)
}

async fn reclaim(lanes: &[Handle]) -> Vec<ReclaimedBatch> {
    let reclaimed = join_all(lanes.iter().map(Handle::reclaim)).await;
    reclaimed.into_iter().flatten().collect()
}

/// The error of a record that was routed to a deleted topic.
fn is_gone(topic: &str) -> Error {
    Error::new(
        ErrorKind::Cluster(ErrorCode::TopicRecreated),
        format!(
            "topic {topic:?} was deleted and created again after the record was sent: it was for the topic of before, and is not in the new one; send it again if it belongs there"
        ),
    )
}

/// The topic after the change.
async fn new_topic(shared: &Shared) -> Result<Arc<Topic>> {
    let old = shared.routing.read().topic.clone();
    let deadline = Instant::now() + shared.settings.delivery_timeout;
    let mut backoff = Backoff::new(shared.inner.draw());
    loop {
        let why = match shared.inner.refresh(&shared.topic).await {
            Ok(topic) if topic.follows(&old) => return Ok(topic),
            Ok(_) => format!(
                "every node asked still names topic id {} and ring version {}",
                old.id,
                old.partitioner.ring_version()
            ),
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
        reclaimed: Vec<ReclaimedBatch>,
    ) {
        let before = u32::try_from(routing.lanes.len()).unwrap_or(u32::MAX);
        routing
            .lanes
            .extend(handles(before..topic.partitions(), self.shape, &self.rules));
        self.rules.learn(&topic);
        routing.topic = topic;
        for ReclaimedBatch {
            partition,
            mut batch,
            bytes,
        } in reclaimed
        {
            let view = BatchView::trusted(bytes);
            match view.and_then(|view| self.places(routing, partition, &mut batch, &view)) {
                Ok(places) => batch.completion.move_to(places),
                // This client packed the batch, so it unpacks.
                Err(error) => batch.fail(&Error::new(ErrorKind::Corrupt, error.to_string())),
            }
        }
    }

    /// Routes each record of a batch to its current partition.
    fn places(
        self: &Arc<Self>,
        routing: &Routing,
        partition: u32,
        batch: &mut Batch,
        view: &BatchView,
    ) -> std::result::Result<Vec<BatchSlot>, BatchError> {
        let records = view.records(UNPACKED_BYTES)?;
        let partitioner = &routing.topic.partitioner;
        let choice = Choice::ByRing(partitioner.ring_version());
        let mut memory = batch.release_memory();
        let places = records.into_iter().map(|record| {
            let partition = record
                .key
                .as_ref()
                .map_or(partition, |key| partitioner.partition(key));
            let record = NewRecord::again(record, batch.since);
            let mut part = memory.split(record.record.memory_bytes());
            self.push(routing, partition, &record, choice, &mut part)
                .unwrap_or_else(|error| BatchSlot::failed(partition, error))
        });
        Ok(places.collect())
    }
}
