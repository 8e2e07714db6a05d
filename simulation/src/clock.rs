//! Wall time in the simulation: what turmoil says has passed, plus the host's own error.

use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use ropewalk_node::env::Clock;

/// One host's wall clock, which a fault may set wrong, or let go wrong.
#[derive(Debug, Default)]
pub struct SimClock {
    /// How far it is off, in ms.
    skew_ms: AtomicI64,
    drift: Mutex<Option<Drift>>,
    /// How often it was asked.
    asked: AtomicI64,
}

/// A clock that goes too fast or too slowly.
#[derive(Debug, Clone, Copy)]
struct Drift {
    /// Since when, in ms since 1970: the first time it is asked.
    since_ms: Option<i64>,
    /// How much it gains in a million ms, in ms.
    ppm: i64,
}

impl SimClock {
    /// Sets it wrong by so much.
    pub fn set_skew_ms(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }

    /// Lets it gain so many ms in each million, or lose them, from now on; 0 sets it right.
    pub fn set_drift_ppm(&self, ppm: i64) {
        let drift = Drift {
            since_ms: None,
            ppm,
        };
        *self.drift.lock() = (ppm != 0).then_some(drift);
    }

    /// How often it was asked, since the last time this was.
    pub fn take_asked(&self) -> i64 {
        self.asked.swap(0, Ordering::Relaxed)
    }

    fn drifted_ms(&self, now_ms: i64) -> i64 {
        let mut drift = self.drift.lock();
        drift.as_mut().map_or(0, |drift| {
            let since_ms = *drift.since_ms.get_or_insert(now_ms);
            (now_ms - since_ms).saturating_mul(drift.ppm) / 1_000_000
        })
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let now_ms = turmoil::since_epoch().map_or(0, |time| time.as_millis() as i64);
        now_ms + self.skew_ms.load(Ordering::Relaxed) + self.drifted_ms(now_ms)
    }
}
