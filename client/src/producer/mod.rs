//! Publishing. Records accumulate in batches, one open batch per partition. Each partition has a lane, a task
//! that sends its batches to the leader in order, and retries until they are answered.
//!
//! Every batch carries the producer's id, epoch and a sequence number. Retries send the same bytes, so that a
//! partition accepts the batch once. This module must not decide which batches a partition accepts.

mod accumulator;
mod batch;
mod builder;
mod deadlines;
mod handle;
mod identity;
mod in_flight;
mod memory;
mod partition_sender;
mod pending;
mod produce_stream;
mod reroute;
mod rules;
mod shared;
mod split;

use std::sync::Arc;

use futures_util::future::join_all;
use tokio_util::sync::DropGuard;

pub use builder::ProducerBuilder;
pub use pending::PendingAck;

use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;

use batch::NewRecord;
use shared::{Routed, Shared};

/// Publishes records to one topic. Cheap to clone; all clones share batches, memory and order.
///
/// Records with the same key keep the order in which they were sent. Each acknowledged record is in the log
/// exactly once. A record that failed with [`Error::outcome_unknown`] may be in the log.
///
/// Dropping the last clone gives up unacknowledged records. Before that, call [`Producer::close`], or wait
/// for the pending acknowledgements.
#[derive(Debug, Clone)]
pub struct Producer {
    shared: Arc<Shared>,
    _alive: Arc<DropGuard>,
}

impl Producer {
    fn start(shared: Arc<Shared>) -> Producer {
        let alive = shared.stop.clone().drop_guard();
        Producer {
            shared,
            _alive: Arc::new(alive),
        }
    }

    /// Name of the topic.
    pub fn topic(&self) -> &str {
        &self.shared.topic
    }

    /// Queues a record. Returns as soon as there is room for it in the producer's memory. The
    /// [`PendingAck`] completes when the record is acknowledged.
    ///
    /// Cancel-safe: if this future is dropped while it waits for room, the record is not sent.
    ///
    /// # Errors
    /// `TooLarge` for a record that no batch may hold. `InvalidArgument` for a record without a key if the
    /// topic is compacted. `UnknownPartition` if the record names an unknown partition. `Timeout` if there
    /// was no room within the delivery timeout. `Closed`; `ProducerFenced`. In all these cases the record is
    /// not sent.
    pub async fn send(&self, record: Record) -> Result<PendingAck> {
        let shared = &self.shared;
        shared.check_open()?;
        let record = record.complete(&shared.inner);
        let wait = shared.settings.delivery_timeout;
        let mut memory = match shared.memory.take(record.memory_bytes(), wait).await {
            Ok(memory) => memory,
            Err(error) => return Err(shared.check_open().err().unwrap_or(error)),
        };
        let timestamp_ms = record
            .timestamp_ms
            .unwrap_or_else(|| shared.inner.clock.now_ms());
        let record = NewRecord {
            record,
            timestamp_ms,
            since: None,
        };
        let mut asked = false;
        loop {
            match shared.route(&record, &mut memory) {
                Ok(Routed::Placed(place)) => return Ok(PendingAck::new(place, timestamp_ms)),
                // The topic's settings may have changed since the last metadata.
                Err(error) if !asked && error.is_of_the_record() => {
                    asked = true;
                    shared.ask_for_rules().await;
                }
                Err(error) => return Err(error),
                Ok(Routed::Wait) => {
                    let mut open = shared.open.subscribe();
                    // This borrow keeps the sender alive.
                    let _ = open.wait_for(|open| *open).await;
                }
            }
        }
    }

    /// Sends the accumulated records, and waits until everything sent before is acknowledged or failed.
    ///
    /// # Errors
    /// The error of one of these records; their [`PendingAck`]s report each of them.
    pub async fn flush(&self) -> Result<()> {
        let unsettled: Vec<_> = {
            let routing = self.shared.routing.read();
            let lanes = routing.lanes.iter();
            lanes.flat_map(|lane| lane.gathered.flush()).collect()
        };
        let ended = join_all(unsettled.into_iter().map(pending::all_settled)).await;
        ended.into_iter().collect()
    }

    /// Rejects further records, from any clone, and waits until the accepted ones are acknowledged or failed.
    ///
    /// # Errors
    /// As for [`Producer::flush`].
    pub async fn close(&self) -> Result<()> {
        self.shared.refuse(closed());
        let flushed = self.flush().await;
        self.shared.stop.cancel();
        flushed
    }
}

/// Error returned for sends after the producer was closed, or while it closes.
fn closed() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the producer was closed, or dropped before the record was acknowledged; build another",
    )
}
