//! A rate limit for entries to replicas that do not vote yet. Produce traffic must not wait for a joining
//! node, so all learners share one rate.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// A rate limiter that serves its callers in the order in which they ask.
#[derive(Debug)]
pub(super) struct RateLimiter {
    /// 0 means no limit.
    bytes_per_s: usize,
    /// Time at which all bytes taken so far are within the rate.
    paid: Mutex<Instant>,
}

impl RateLimiter {
    pub(super) fn new(bytes_per_s: usize) -> RateLimiter {
        RateLimiter {
            bytes_per_s,
            paid: Mutex::new(Instant::now()),
        }
    }

    /// Takes this number of bytes, and waits until the bytes taken before are within the rate. Unused rate
    /// does not accumulate.
    pub(super) async fn take(&self, bytes: usize) {
        if self.bytes_per_s == 0 {
            return;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let from = {
            let mut paid = self.paid.lock();
            let from = (*paid).max(Instant::now());
            *paid = from + cost;
            from
        };
        sleep_until(from).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_share_the_rate_and_a_rest_is_not_saved_up() {
        let allowance = RateLimiter::new(1_000);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        tokio::join!(
            allowance.take(500),
            allowance.take(2_000),
            allowance.take(1)
        );
        assert_eq!(begun.elapsed(), Duration::from_millis(2_500));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nobody_waits() {
        let allowance = RateLimiter::new(0);
        let begun = Instant::now();
        allowance.take(usize::MAX).await;
        allowance.take(usize::MAX).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
