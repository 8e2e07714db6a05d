//! A record on its way through an application, and the acknowledgement of its handler.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::assignment::TopicPartitionId;
use super::shared::Shared;
use crate::record::ConsumedRecord;

/// A record of a subscription. Its handler acknowledges it with [`Delivery::ack`]. Commits pass only
/// acknowledged records.
///
/// A delivery that is dropped without an acknowledgement blocks its partition's commits for as long as this
/// member has the partition. The next member to read the partition gets the record again.
#[must_use = "a delivery that is dropped holds the commits of its partition back; call ack()"]
pub struct Delivery {
    topic: Arc<str>,
    record: ConsumedRecord,
    /// None if [`super::Subscription::run_concurrent`] acknowledges the record.
    ticket: Option<DoneToken>,
}

impl Delivery {
    pub(super) fn new(topic: Arc<str>, record: ConsumedRecord, ticket: DoneToken) -> Delivery {
        Delivery {
            topic,
            record,
            ticket: Some(ticket),
        }
    }

    /// Topic of the record.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The record. A delivery also derefs to it.
    pub fn record(&self) -> &ConsumedRecord {
        &self.record
    }

    /// Acknowledges the record: commits may pass it.
    pub fn ack(self) {
        if let Some(ticket) = self.ticket {
            ticket.ack();
        }
    }

    pub(super) fn take_ticket(&mut self) -> Option<DoneToken> {
        self.ticket.take()
    }
}

impl Deref for Delivery {
    type Target = ConsumedRecord;

    fn deref(&self) -> &ConsumedRecord {
        &self.record
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("topic", &self.topic)
            .field("record", &self.record)
            .finish()
    }
}

/// The right to acknowledge a record. A record whose ticket is dropped is never acknowledged.
#[derive(Debug)]
pub(super) struct DoneToken {
    shared: Arc<Shared>,
    pub place: TopicPartitionId,
    pub life: u64,
    pub offset: u64,
    pub bytes: usize,
    acked: bool,
}

impl DoneToken {
    pub fn new(
        shared: Arc<Shared>,
        place: TopicPartitionId,
        life: u64,
        offset: u64,
        bytes: usize,
    ) -> DoneToken {
        DoneToken {
            shared,
            place,
            life,
            offset,
            bytes,
            acked: false,
        }
    }

    pub fn ack(mut self) {
        self.acked = true;
    }

    /// Returns true if this member still reads the partition, so that a handler is worth starting.
    pub fn counts(&self) -> bool {
        self.shared.counts(self.place, self.life)
    }
}

impl Drop for DoneToken {
    fn drop(&mut self) {
        self.shared.settle(self, self.acked);
    }
}
