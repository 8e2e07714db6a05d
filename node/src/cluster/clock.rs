//! The time of day that a cluster goes by: what most of its nodes' clocks say.
//!
//! A leader decides by it what is too old to keep. By its own clock alone, one that was set wrong would
//! trim what it took in a minute ago, and forget where groups were.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_proto::ids::NodeId;
use tokio::time::Instant;

use crate::env::Clock;
use crate::valve::Valve;

/// How far a node's own clock may be off the others' and still be gone by: no more than reports take.
const TOLERATED_MS: i64 = 5_000;
/// A clock last heard of this long ago counts no more. Until then it is taken to have gone on: a node
/// that is away for a while keeps its vote.
const HEARD_WITHIN: Duration = Duration::from_secs(3_600);

/// The clocks of a cluster, as one node knows them from reports.
#[derive(Debug)]
pub struct ClusterClock {
    own: Arc<dyn Clock>,
    others: Mutex<BTreeMap<NodeId, Heard>>,
    warnings: Valve,
}

/// What a node's clock said.
#[derive(Debug, Clone, Copy)]
struct Heard {
    time_ms: i64,
    at: Instant,
}

impl Heard {
    fn now_ms(&self) -> i64 {
        let since_ms = i64::try_from(self.at.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.time_ms.saturating_add(since_ms)
    }
}

impl ClusterClock {
    pub(super) fn new(own: Arc<dyn Clock>) -> ClusterClock {
        ClusterClock {
            own,
            others: Mutex::default(),
            warnings: Valve::rare(),
        }
    }

    /// What this node's own clock says, to be told to the others.
    pub(super) fn own_ms(&self) -> i64 {
        self.own.now_ms()
    }

    /// Another node has just said what time it is; `None` from one that is too old to say.
    pub(super) fn heard(&self, node: NodeId, time_ms: Option<i64>) {
        if let Some(time_ms) = time_ms {
            let at = Instant::now();
            self.others.lock().insert(node, Heard { time_ms, at });
        }
        self.warn_if_off();
    }

    fn warn_if_off(&self) {
        let off_ms = self.own_ms().saturating_sub(self.now_ms());
        if off_ms.unsigned_abs() > TOLERATED_MS.unsigned_abs() && self.warnings.pass().is_some() {
            tracing::warn!(
                off_ms,
                "this node's clock is far from what most nodes' say, by which it goes; mend its time synchronization"
            );
        }
    }
}

impl Clock for ClusterClock {
    /// The median of all clocks, the earlier of two; this node's own if it is about that.
    fn now_ms(&self) -> i64 {
        let own_ms = self.own.now_ms();
        let mut others = self.others.lock();
        others.retain(|_, heard| heard.at.elapsed() < HEARD_WITHIN);
        let mut all_ms: Vec<i64> = others.values().map(Heard::now_ms).collect();
        drop(others);
        all_ms.push(own_ms);
        all_ms.sort_unstable();
        let median_ms = all_ms[(all_ms.len() - 1) / 2];
        match own_ms.abs_diff(median_ms) <= TOLERATED_MS.unsigned_abs() {
            true => own_ms,
            false => median_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const YEAR_MS: i64 = 365 * 24 * 3_600_000;

    #[derive(Debug, Default)]
    struct Set(AtomicI64);

    impl Clock for Set {
        fn now_ms(&self) -> i64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// A node whose clock says 0, which has heard these.
    fn among(others_ms: &[i64]) -> (Arc<Set>, ClusterClock) {
        let own = Arc::new(Set::default());
        let clock = ClusterClock::new(own.clone());
        for (node, time_ms) in (2..).zip(others_ms) {
            clock.heard(NodeId(node), Some(*time_ms));
        }
        (own, clock)
    }

    #[tokio::test(start_paused = true)]
    async fn one_clock_of_three_that_is_wrong_counts_for_nothing() {
        let (own, clock) = among(&[1_000, 2_000]);
        assert_eq!(clock.now_ms(), 0);
        for wrong_ms in [YEAR_MS, -YEAR_MS, i64::MIN, i64::MAX] {
            own.0.store(wrong_ms, Ordering::Relaxed);
            assert!((1_000..=2_000).contains(&clock.now_ms()), "{wrong_ms}");
            own.0.store(0, Ordering::Relaxed);
            assert_eq!(among(&[1_000, wrong_ms]).1.now_ms(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_node_goes_by_its_own_clock_and_two_by_the_earlier() {
        assert_eq!(among(&[]).1.now_ms(), 0);
        assert_eq!(among(&[YEAR_MS]).1.now_ms(), 0);
        assert_eq!(among(&[-YEAR_MS]).1.now_ms(), -YEAR_MS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_away_is_taken_to_have_a_clock_that_goes_on_for_an_hour() {
        let (own, clock) = among(&[1_000, 2_000]);
        own.0.store(YEAR_MS, Ordering::Relaxed);
        tokio::time::advance(Duration::from_secs(3_000)).await;
        assert_eq!(clock.now_ms(), 3_002_000);
        tokio::time::advance(Duration::from_secs(601)).await;
        assert_eq!(clock.now_ms(), YEAR_MS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_say_has_no_vote() {
        let (own, clock) = among(&[]);
        clock.heard(NodeId(2), None);
        own.0.store(YEAR_MS, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), YEAR_MS);
    }
}
