//! Wall time in the simulation: what turmoil says has passed, plus the host's own error.

use std::sync::atomic::{AtomicI64, Ordering};

use ropewalk_node::env::Clock;

/// One host's wall clock, which a fault may set wrong.
#[derive(Debug, Default)]
pub struct SimClock {
    /// How far this host's clock is off, in ms.
    pub skew_ms: AtomicI64,
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        let since_epoch = turmoil::since_epoch().map_or(0, |time| time.as_millis() as i64);
        since_epoch + self.skew_ms.load(Ordering::Relaxed)
    }
}
