//! Pauses between retries. They grow, and differ between clients.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

const FIRST: Duration = Duration::from_millis(10);
/// Maximum before jitter, which at most doubles it. It is short because it delays the resumption of
/// publishing.
const LONGEST: Duration = Duration::from_millis(200);

/// Growing pauses after consecutive failures, until a success.
#[derive(Debug)]
pub(crate) struct Backoff {
    seed: u64,
    pauses: Option<ExponentialBackoff>,
}

impl Backoff {
    pub fn new(seed: u64) -> Backoff {
        Backoff { seed, pauses: None }
    }

    /// The pause after another failure.
    pub fn pause(&mut self) -> Duration {
        let seed = self.seed;
        let begin = || {
            ExponentialBuilder::new()
                .with_min_delay(FIRST)
                .with_max_delay(LONGEST)
                .without_max_times()
                .with_jitter()
                .with_jitter_seed(seed)
                .build()
        };
        let pauses = self.pauses.get_or_insert_with(begin);
        pauses.next().unwrap_or(LONGEST)
    }

    /// Records a success: the next pause is a short one again.
    pub fn succeeded(&mut self) {
        if self.pauses.take().is_some() {
            self.seed = self
                .seed
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(1);
        }
    }
}
