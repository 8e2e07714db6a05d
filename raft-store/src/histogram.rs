//! Histograms: counts of values by size, for metrics of latencies and sizes.
//!
//! Recording takes two atomic additions, so every batch can pass through it. Names, labels and formats must
//! never come in here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of latencies in nanoseconds, from the speed of memory to a request's deadline.
pub const LATENCY_BOUNDS_NANOS: &[u64] = &[
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    15_000_000_000,
];

/// Upper bounds of sizes, in bytes.
pub const SIZE_BOUNDS_BYTES: &[u64] = &[
    1 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    4 << 20,
    16 << 20,
    64 << 20,
];

/// Counts of values between bounds, and the sum of all values.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One count for each bound, and one for values above all of them.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// The counts of a histogram at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramCounts {
    /// Upper bound and count of each bucket; the last bound is `u64::MAX`.
    pub counts: Vec<(u64, u64)>,
    /// Sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// An empty histogram, with bounds in rising order.
    pub fn new(bounds: &'static [u64]) -> Histogram {
        Histogram {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// An empty histogram of latencies.
    pub fn latencies() -> Histogram {
        Histogram::new(LATENCY_BOUNDS_NANOS)
    }

    /// Counts one value.
    pub fn observe(&self, value: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
            self.sum.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// Counts one latency.
    pub fn took(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The counts at this moment. A value recorded meanwhile may be in only one of the counts and the sum.
    pub fn counts(&self) -> HistogramCounts {
        let bounds = self.bounds.iter().copied().chain([u64::MAX]);
        let counts = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        HistogramCounts {
            counts: bounds.zip(counts).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_below_it_and_one_past_all_is_kept() {
        let histogram = Histogram::new(&[10, 100]);
        for value in [10, 11, 100, 101] {
            histogram.observe(value);
        }
        let now = histogram.counts();
        assert_eq!(now.counts, [(10, 1), (100, 2), (u64::MAX, 1)]);
        assert_eq!(now.sum, 222);
    }

    #[test]
    fn bounds_rise() {
        for bounds in [LATENCY_BOUNDS_NANOS, SIZE_BOUNDS_BYTES] {
            assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
