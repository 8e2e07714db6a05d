//! What must hold, one file an invariant.

mod acknowledged;
mod order;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::Event;
pub use crate::load::Found;

/// What a check can see.
#[derive(Debug)]
pub struct Seen<'a> {
    /// What clients did and were told.
    pub history: &'a [(Duration, Event)],
    /// In the end, what each partition holds, in order of offset.
    pub logs: &'a BTreeMap<u32, Vec<Found>>,
}

/// One invariant.
pub trait Check {
    /// What it is called in reports.
    fn name(&self) -> &'static str;

    /// Judges a whole run.
    ///
    /// # Errors
    /// What is wrong.
    fn end(&self, seen: &Seen<'_>) -> Result<(), String>;
}

/// Every check there is.
pub fn all() -> Vec<Box<dyn Check>> {
    vec![
        Box::new(acknowledged::AcknowledgedIsThere),
        Box::new(order::OrderPerKey),
    ]
}
