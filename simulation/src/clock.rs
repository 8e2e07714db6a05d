//! Wall time in the simulation: turmoil's elapsed time plus the host's own error.

use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use ropewalk_node::env::Clock;

/// One host's wall clock. A fault may set it wrong or make it drift.
#[derive(Debug, Default)]
pub struct SimClock {
    /// Error of the clock, in ms.
    skew_ms: AtomicI64,
    drift: Mutex<Option<Drift>>,
    /// Number of reads since the last `take_asked`.
    asked: AtomicI64,
}

/// A clock that runs too fast or too slowly.
#[derive(Debug, Clone, Copy)]
struct Drift {
    /// Start of the drift, in ms since 1970: the first read of the clock.
    since_ms: Option<i64>,
    /// Gain in a million ms, in ms.
    ppm: i64,
}

impl SimClock {
    /// Sets the clock's error.
    pub fn set_skew_ms(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }

    /// Lets the clock gain (or lose) this many ms in each million from now on; 0 ends the drift.
    pub fn set_drift_ppm(&self, ppm: i64) {
        let drift = Drift {
            since_ms: None,
            ppm,
        };
        *self.drift.lock() = (ppm != 0).then_some(drift);
    }

    /// Number of reads since the previous call.
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
