//! What clients did and were told, each with its simulated time. Checks read it; nothing else does.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::fault::What;

/// One record's name in a run: who sent it, and its number there.
pub type RecordName = (u32, u64);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A producer was given a record.
    Sent {
        /// The record.
        name: RecordName,
        /// Its key.
        key: u32,
    },
    /// It was acknowledged.
    Acknowledged {
        /// The record.
        name: RecordName,
        /// Where it is.
        partition: u32,
        /// At which offset.
        offset: u64,
    },
    /// It was not acknowledged.
    Failed {
        /// The record.
        name: RecordName,
        /// Whether it may be there all the same.
        unknown: bool,
        /// What was said.
        error: String,
    },
    /// A reader that goes on from where it stood got a record.
    Read {
        /// Which reader.
        reader: u32,
        /// Where it reads.
        partition: u32,
        /// At which offset.
        offset: u64,
        /// The record.
        name: RecordName,
        /// Its key.
        key: u32,
    },
    /// A fault fell.
    Fault(What),
}

/// All that happened in one run, in order. Clones are the same history.
#[derive(Debug, Clone, Default)]
pub struct History {
    events: Arc<Mutex<Vec<(Duration, Event)>>>,
}

impl History {
    /// Adds what happens now.
    pub fn add(&self, event: Event) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        tracing::debug!(?event, "history");
        self.events.lock().push((at, event));
    }

    /// Adds a fault; outside of any host there is no clock to ask.
    pub fn fault(&self, what: &What) {
        let mut events = self.events.lock();
        let at = events.last().map_or(Duration::ZERO, |(at, _)| *at);
        events.push((at, Event::Fault(what.clone())));
    }

    /// What happened so far.
    pub fn events(&self) -> MutexGuard<'_, Vec<(Duration, Event)>> {
        self.events.lock()
    }
}
