//! The time of day that a cluster goes by: what most of its nodes' clocks say.
//!
//! A leader stamps records by it, and decides by it what is too old to keep. By its own clock alone, one
//! that was set wrong would trim what it took in a minute ago, and forget where groups were.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::mistake::{Mistake, made};
use tokio::time::Instant;

use crate::env::Clock;
use crate::valve::Valve;

/// How far off the others' a node's own clock may be and still be gone by: more than reports take.
const TOLERATED_MS: i64 = 5_000;
/// A clock last heard of this long ago counts no more. Until then it is taken to have gone on: a node
/// that is away for a while keeps its vote.
const HEARD_WITHIN: Duration = Duration::from_secs(3_600);
/// Below this many clocks nobody can say which of them is wrong.
const ENOUGH_TO_BLAME: usize = 3;

/// The clocks of a cluster, as one node knows them from reports.
#[derive(Debug)]
pub struct ClusterClock {
    own: Arc<dyn Clock>,
    /// The other nodes, and what they said; none until it is known which there are.
    others: Mutex<Option<BTreeMap<NodeId, Option<Heard>>>>,
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

/// What all clocks say that are known of, the earliest first.
struct Said {
    own_ms: i64,
    all_ms: Vec<i64>,
    is_majority: bool,
}

impl Said {
    /// A node's own clock, as far as it is about what another says.
    fn near(&self, other_ms: i64) -> i64 {
        if made(Mistake::TrustTheClocks) {
            return self.own_ms;
        }
        let earliest_ms = other_ms.saturating_sub(TOLERATED_MS);
        self.own_ms
            .clamp(earliest_ms, other_ms.saturating_add(TOLERATED_MS))
    }

    /// By the median; of two that are in the middle, the later.
    fn latest_ms(&self) -> i64 {
        self.near(self.all_ms[self.all_ms.len() / 2])
    }

    /// By the median; of two that are in the middle, the earlier.
    fn earliest_ms(&self) -> i64 {
        self.near(self.all_ms[(self.all_ms.len() - 1) / 2])
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

    /// Which other nodes there are: nobody else has a vote.
    pub(super) fn set_others(&self, nodes: impl Iterator<Item = NodeId>) {
        let mut others = self.others.lock();
        let known = others.take().unwrap_or_default();
        let nodes = nodes.map(|node| (node, known.get(&node).copied().flatten()));
        *others = Some(nodes.collect());
    }

    /// A node has just said what time it is; `None` from one that is too old to say.
    pub(super) fn heard(&self, node: NodeId, time_ms: Option<i64>) {
        let at = Instant::now();
        if let Some(others) = self.others.lock().as_mut()
            && let Some(other) = others.get_mut(&node)
        {
            *other = time_ms.map(|time_ms| Heard { time_ms, at });
        }
        self.warn_if_off();
    }

    fn said(&self) -> Said {
        let own_ms = self.own.now_ms();
        let others = self.others.lock();
        let heard = others.iter().flat_map(BTreeMap::values).flatten();
        let heard = heard.filter(|heard| heard.at.elapsed() < HEARD_WITHIN);
        let mut all_ms: Vec<i64> = heard.map(Heard::now_ms).collect();
        all_ms.push(own_ms);
        all_ms.sort_unstable();
        Said {
            own_ms,
            is_majority: others
                .as_ref()
                .is_some_and(|others| all_ms.len() * 2 > others.len() + 1),
            all_ms,
        }
    }

    fn warn_if_off(&self) {
        let said = self.said();
        let off_ms = said.own_ms.saturating_sub(said.latest_ms());
        if off_ms != 0 && said.all_ms.len() >= ENOUGH_TO_BLAME && self.warnings.pass().is_some() {
            tracing::warn!(
                off_ms,
                "this node's clock is far from what most nodes' say, by which it goes; mend its time synchronization"
            );
        }
    }
}

impl Clock for ClusterClock {
    /// What most clocks say; where half of them say otherwise, the later: a record that is stamped too late
    /// is kept too long.
    fn now_ms(&self) -> i64 {
        self.said().latest_ms()
    }

    /// What most clocks say; where half of them say otherwise, the earlier. While most are not known of,
    /// nothing has passed.
    fn earliest_ms(&self) -> i64 {
        let said = self.said();
        match said.is_majority {
            true => said.earliest_ms(),
            false => i64::MIN,
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

    /// A node, and what the other nodes of its cluster have said, if they have.
    fn among(own_ms: i64, others_ms: &[Option<i64>]) -> (Arc<Set>, ClusterClock) {
        let own = Arc::new(Set(own_ms.into()));
        let clock = ClusterClock::new(own.clone());
        clock.set_others((2..).map(NodeId).take(others_ms.len()));
        for (node, time_ms) in (2..).zip(others_ms) {
            clock.heard(NodeId(node), *time_ms);
        }
        (own, clock)
    }

    /// Stamps and decisions.
    fn goes_by(own_ms: i64, others_ms: &[Option<i64>]) -> (i64, i64) {
        let (_, clock) = among(own_ms, others_ms);
        (clock.now_ms(), clock.earliest_ms())
    }

    #[tokio::test(start_paused = true)]
    async fn one_clock_of_three_that_is_wrong_counts_for_nothing() {
        for wrong_ms in [YEAR_MS, -YEAR_MS, i64::MIN, i64::MAX] {
            assert_eq!(goes_by(0, &[Some(1_000), Some(wrong_ms)]), (0, 0));
            let (stamp_ms, decision_ms) = goes_by(wrong_ms, &[Some(0), Some(1_000)]);
            let about = -TOLERATED_MS..=TOLERATED_MS + 1_000;
            assert!(about.contains(&stamp_ms) && about.contains(&decision_ms));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_no_jump_where_a_clock_begins_to_be_wrong() {
        let stamps_ms = |off_ms| goes_by(off_ms, &[Some(0), Some(0)]).0;
        assert_eq!(stamps_ms(TOLERATED_MS), TOLERATED_MS);
        assert_eq!(stamps_ms(TOLERATED_MS + 1), TOLERATED_MS);
    }

    #[tokio::test(start_paused = true)]
    async fn where_half_of_the_clocks_are_wrong_records_are_kept_for_too_long() {
        for wrong_ms in [YEAR_MS, -YEAR_MS] {
            let earlier_and_later_ms = (wrong_ms.min(0), wrong_ms.max(0));
            for (own_ms, other_ms) in [(0, wrong_ms), (wrong_ms, 0)] {
                let (stamp_ms, decision_ms) = goes_by(own_ms, &[Some(other_ms)]);
                assert!(decision_ms <= earlier_and_later_ms.0 + TOLERATED_MS);
                assert!(stamp_ms >= earlier_and_later_ms.1 - TOLERATED_MS);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_node_goes_by_its_own_clock() {
        assert_eq!(goes_by(7, &[]), (7, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_has_passed_as_long_as_most_clocks_are_not_known() {
        assert_eq!(goes_by(YEAR_MS, &[None, None]), (YEAR_MS, i64::MIN));
        let fresh = ClusterClock::new(Arc::new(Set::default()));
        assert_eq!(fresh.earliest_ms(), i64::MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_away_is_taken_to_have_a_clock_that_goes_on_for_an_hour() {
        let (own, clock) = among(0, &[Some(0), Some(0)]);
        tokio::time::advance(Duration::from_secs(3_000)).await;
        own.0.store(YEAR_MS, Ordering::Relaxed);
        assert_eq!(clock.earliest_ms(), 3_000_000 + TOLERATED_MS);
        tokio::time::advance(Duration::from_secs(601)).await;
        assert_eq!(clock.earliest_ms(), i64::MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_left_has_no_vote() {
        let (_, clock) = among(0, &[Some(0), Some(YEAR_MS), Some(YEAR_MS), Some(YEAR_MS)]);
        assert!(clock.earliest_ms() > 0);
        clock.set_others([NodeId(2), NodeId(3)].into_iter());
        clock.heard(NodeId(4), Some(YEAR_MS));
        assert_eq!((clock.now_ms(), clock.earliest_ms()), (0, 0));
    }
}
