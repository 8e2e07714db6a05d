//! The operating system's wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Clock;

/// The operating system's wall time.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    /// A clock set to before 1970 reads as 0.
    #[allow(clippy::disallowed_methods)] // this is the seam
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    }
}
