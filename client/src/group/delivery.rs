//! A record on its way through an application, and the word that its handler has finished.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::assignment::Place;
use super::shared::Shared;
use crate::record::ConsumedRecord;

/// A record of a subscription. Whoever has finished with it says so with [`Delivery::done`]; a
/// position is committed only past records that are done.
///
/// One that is dropped before it is done holds its partition's commits back for as long as this
/// member has the partition: the record comes again to whoever reads it next.
#[must_use = "a delivery that is dropped holds the commits of its partition back; call done()"]
pub struct Delivery {
    topic: Arc<str>,
    record: ConsumedRecord,
    /// None where [`super::Subscription::run`] says that it is done.
    ticket: Option<Ticket>,
}

impl Delivery {
    pub(super) fn new(topic: Arc<str>, record: ConsumedRecord, ticket: Ticket) -> Delivery {
        Delivery {
            topic,
            record,
            ticket: Some(ticket),
        }
    }

    /// The topic it was published to.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The record. A delivery derefs to it, too.
    pub fn record(&self) -> &ConsumedRecord {
        &self.record
    }

    /// The handler has finished with it: the next commit may pass it.
    pub fn done(self) {
        if let Some(ticket) = self.ticket {
            ticket.done();
        }
    }

    pub(super) fn take_ticket(&mut self) -> Option<Ticket> {
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

/// The right to say that a record is done. Dropped without it, the record is not.
#[derive(Debug)]
pub(super) struct Ticket {
    shared: Arc<Shared>,
    pub place: Place,
    pub life: u64,
    pub offset: u64,
    pub bytes: usize,
    done: bool,
}

impl Ticket {
    pub fn new(shared: Arc<Shared>, place: Place, life: u64, offset: u64, bytes: usize) -> Ticket {
        Ticket {
            shared,
            place,
            life,
            offset,
            bytes,
            done: false,
        }
    }

    pub fn done(mut self) {
        self.done = true;
    }

    /// Whether the partition is still read here, so that it makes sense to begin.
    pub fn counts(&self) -> bool {
        self.shared.counts(self.place, self.life)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.settle(self, self.done);
    }
}
