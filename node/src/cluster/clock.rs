//! The cluster's time of day: the time that most of its nodes' clocks agree on.
//!
//! A leader stamps records by it, and decides by it which records are too old to keep. By its own clock alone,
//! a leader with a wrong clock would trim records of a minute ago and expire committed offsets.
//!
//! **A jump that would make records older counts only after it has lasted for [`JUMP_HELD`].** Most clocks
//! may be set wrong together, and reports may be forged. Such jumps go ahead in decisions and back in stamps.
//! Jumps the other way count at once, since they only keep records for longer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use tokio::time::Instant;

use crate::env::Clock;
use crate::log_limiter::LogLimiter;

/// Tolerated distance of a node's own clock from the others'. More than the delay of a report.
const TOLERATED_MS: i64 = 5_000;
/// Time after which a clock that is not heard from loses its vote. Until then its time is extrapolated: a
/// node that is away for a while keeps its vote.
const HEARD_WITHIN: Duration = Duration::from_secs(3_600);
/// Minimum number of clocks at which a wrong one can be identified.
const ENOUGH_TO_BLAME: usize = 3;
/// Time for which a jump must last before it counts. Enough for an operator to react to the warning.
const JUMP_HELD: Duration = Duration::from_secs(1_800);
/// Synchronized clocks drift by less than one part in this number.
const DRIFT_ONE_IN: i64 = 100;
/// Minimum interval between two drift steps of a base. Long enough for a step of at least 1 ms.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// The clocks of a cluster, as one node knows them from reports.
#[derive(Debug)]
pub struct ClusterClock {
    own: Arc<dyn Clock>,
    /// The other nodes and their clocks. None until the set of nodes is known.
    others: Mutex<Option<BTreeMap<NodeId, Option<PeerTime>>>>,
    held: Mutex<Held>,
    warnings: LogLimiter,
}

/// The reference times against which jumps are measured.
#[derive(Debug)]
struct Held {
    decisions: Steady,
    /// None until enough clocks are known: one clock, or one of two, proves little.
    stamps: Option<Steady>,
}

impl Held {
    /// Start of the jump that is being held, if there is one.
    fn since(&self) -> Option<Instant> {
        let stamps = self.stamps.as_ref().and_then(|stamps| stamps.since);
        self.decisions.since.or(stamps)
    }
}

/// A time that advances evenly. It follows a jump in one direction only after the jump has lasted.
#[derive(Debug)]
struct Steady {
    base: PeerTime,
    /// Start of the jump that is being held.
    since: Option<Instant>,
}

/// The direction of a jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Ahead,
    Back,
}

impl Steady {
    fn from(time_ms: i64) -> Steady {
        let at = Instant::now();
        Steady {
            base: PeerTime { time_ms, at },
            since: None,
        }
    }

    /// The time now, if the clocks say `told_ms`. A jump in the direction of `held` waits.
    fn next(&mut self, told_ms: i64, held: Way) -> i64 {
        let expected_ms = self.base.now_ms();
        let toward_ms = match held {
            Way::Ahead => told_ms.saturating_sub(expected_ms),
            Way::Back => expected_ms.saturating_sub(told_ms),
        };
        if toward_ms > TOLERATED_MS && !is_planted(PlantedBug::TrustTheClocks) {
            let lasted = self.since.get_or_insert_with(Instant::now).elapsed();
            if lasted < JUMP_HELD {
                return expected_ms;
            }
            *self = Steady::from(told_ms);
            return told_ms;
        }
        self.since = None;
        self.follow(told_ms, toward_ms, expected_ms, held);
        told_ms
    }

    /// Moves the base toward the time of the clocks. In the direction of `held` it moves no faster than
    /// clocks drift, so that small steps cannot bypass the wait.
    fn follow(&mut self, told_ms: i64, toward_ms: i64, expected_ms: i64, held: Way) {
        if toward_ms <= 0 {
            self.base = Steady::from(told_ms).base;
        } else if self.base.at.elapsed() >= FOLLOW_EVERY {
            let passed_ms = i64::try_from(self.base.at.elapsed().as_millis()).unwrap_or(i64::MAX);
            let step_ms = toward_ms.min(passed_ms / DRIFT_ONE_IN);
            let base_ms = match held {
                Way::Ahead => expected_ms.saturating_add(step_ms),
                Way::Back => expected_ms.saturating_sub(step_ms),
            };
            self.base = Steady::from(base_ms).base;
        }
    }
}

/// A node's clock, as reported.
#[derive(Debug, Clone, Copy)]
struct PeerTime {
    time_ms: i64,
    at: Instant,
}

impl PeerTime {
    fn now_ms(&self) -> i64 {
        let since_ms = i64::try_from(self.at.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.time_ms.saturating_add(since_ms)
    }
}

/// The times of all known clocks, the earliest first.
struct Said {
    own_ms: i64,
    all_ms: Vec<i64>,
    is_majority: bool,
    /// True if enough clocks are known to identify a wrong one, or if the cluster has no more.
    is_telling: bool,
}

impl Said {
    /// The node's own time, if it is near `other_ms`; otherwise the tolerated distance from that.
    fn near(&self, other_ms: i64) -> i64 {
        if is_planted(PlantedBug::TrustTheClocks) {
            return self.own_ms;
        }
        let earliest_ms = other_ms.saturating_sub(TOLERATED_MS);
        self.own_ms
            .clamp(earliest_ms, other_ms.saturating_add(TOLERATED_MS))
    }

    /// The median; of two in the middle, the later.
    fn latest_ms(&self) -> i64 {
        self.near(self.all_ms[self.all_ms.len() / 2])
    }

    /// The median; of two in the middle, the earlier.
    fn earliest_ms(&self) -> i64 {
        self.near(self.all_ms[(self.all_ms.len() - 1) / 2])
    }
}

impl ClusterClock {
    pub(super) fn new(own: Arc<dyn Clock>) -> ClusterClock {
        let begin = Steady::from(own.now_ms());
        ClusterClock {
            own,
            others: Mutex::default(),
            held: Mutex::new(Held {
                decisions: begin,
                stamps: None,
            }),
            warnings: LogLimiter::rare(),
        }
    }

    /// This node's own clock, for its reports to the others.
    pub(super) fn own_ms(&self) -> i64 {
        self.own.now_ms()
    }

    /// Sets the other nodes. Only their clocks have a vote.
    pub(super) fn set_others(&self, nodes: impl Iterator<Item = NodeId>) {
        let mut others = self.others.lock();
        let known = others.take().unwrap_or_default();
        let nodes = nodes.map(|node| (node, known.get(&node).copied().flatten()));
        *others = Some(nodes.collect());
    }

    /// Records a node's clock from its report. `None` comes from a node that is too old to report it.
    pub(super) fn heard(&self, node: NodeId, time_ms: Option<i64>) {
        let at = Instant::now();
        if let Some(others) = self.others.lock().as_mut()
            && let Some(other) = others.get_mut(&node)
        {
            *other = time_ms.map(|time_ms| PeerTime { time_ms, at });
        }
        // A jump that a report ends must not count as lasting, even if no caller asks for the time in
        // between.
        self.now_ms();
        self.earliest_ms();
        self.warn();
    }

    fn said(&self) -> Said {
        let own_ms = self.own.now_ms();
        let others = self.others.lock();
        let heard = others.iter().flat_map(BTreeMap::values).flatten();
        let heard = heard.filter(|heard| heard.at.elapsed() < HEARD_WITHIN);
        let mut all_ms: Vec<i64> = heard.map(PeerTime::now_ms).collect();
        all_ms.push(own_ms);
        all_ms.sort_unstable();
        Said {
            own_ms,
            is_majority: others
                .as_ref()
                .is_some_and(|others| all_ms.len() * 2 > others.len() + 1),
            is_telling: others
                .as_ref()
                .is_some_and(|others| all_ms.len() >= ENOUGH_TO_BLAME.min(others.len() + 1)),
            all_ms,
        }
    }

    fn warn(&self) {
        let said = self.said();
        let off_ms = said.own_ms.saturating_sub(said.latest_ms());
        if off_ms != 0 && said.all_ms.len() >= ENOUGH_TO_BLAME && self.warnings.pass().is_some() {
            tracing::warn!(
                off_ms,
                "node clock differs from most nodes' clocks, which the cluster follows; correct \
                 this node's time synchronization"
            );
        }
        let since = self.held.lock().since();
        if let Some(since) = since
            && self.warnings.pass().is_some()
        {
            let counts_in_s = JUMP_HELD.saturating_sub(since.elapsed()).as_secs();
            tracing::warn!(
                counts_in_s,
                "clocks of most nodes jumped; retention and record timestamps follow once the \
                 jump has lasted; correct the nodes' time synchronization"
            );
        }
    }
}

impl Clock for ClusterClock {
    /// The time of most clocks. If half of them differ, the later: a record with too late a stamp is only
    /// kept too long.
    fn now_ms(&self) -> i64 {
        let said = self.said();
        let told_ms = said.latest_ms();
        let stamps = &mut self.held.lock().stamps;
        match stamps {
            Some(stamps) => stamps.next(told_ms, Way::Back),
            None => {
                *stamps = (said.is_majority && said.is_telling).then(|| Steady::from(told_ms));
                told_ms
            }
        }
    }

    /// The time of most clocks. If half of them differ, the earlier. While most clocks are unknown, no time
    /// has passed.
    fn earliest_ms(&self) -> i64 {
        let said = self.said();
        match said.is_majority {
            true => {
                let told_ms = said.earliest_ms();
                self.held.lock().decisions.next(told_ms, Way::Ahead)
            }
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

    /// A node's own clock, and the cluster clock with the other nodes' reports so far.
    fn among(own_ms: i64, others_ms: &[Option<i64>]) -> (Arc<Set>, ClusterClock) {
        let own = Arc::new(Set(own_ms.into()));
        let clock = ClusterClock::new(own.clone());
        clock.set_others((2..).map(NodeId).take(others_ms.len()));
        for (node, time_ms) in (2..).zip(others_ms) {
            clock.heard(NodeId(node), *time_ms);
        }
        (own, clock)
    }

    /// The times for stamps and for decisions.
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
            assert!(about.contains(&stamp_ms));
            // A node that starts with its clock behind decides by its own clock for a while.
            assert!(decision_ms <= *about.end());
            assert!(wrong_ms < 0 || about.contains(&decision_ms));
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

    /// Lets two of three nodes report each second for `lasts`. Returns the movement of stamps and decisions
    /// beyond the time that passed.
    async fn moved_ms(clock: &ClusterClock, own: &Set, off_ms: i64, lasts: Duration) -> (i64, i64) {
        let (stamp_ms, decision_ms) = (clock.now_ms(), clock.earliest_ms());
        let began_ms = own.0.load(Ordering::Relaxed);
        let lasts_s = i64::try_from(lasts.as_secs()).unwrap();
        for second in 1..=lasts_s {
            tokio::time::advance(Duration::from_secs(1)).await;
            let true_ms = began_ms + second * 1_000;
            own.0.store(true_ms, Ordering::Relaxed);
            clock.heard(NodeId(2), Some(true_ms + off_ms));
            clock.heard(NodeId(3), Some(true_ms + off_ms));
        }
        let passed_ms = lasts_s * 1_000;
        (
            clock.now_ms() - stamp_ms - passed_ms,
            clock.earliest_ms() - decision_ms - passed_ms,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_of_most_clocks_makes_nothing_older_before_it_has_lasted() {
        let almost = JUMP_HELD - Duration::from_secs(2);
        for off_ms in [YEAR_MS, -YEAR_MS] {
            let (own, clock) = among(0, &[Some(0), Some(0)]);
            let (stamps_ms, decisions_ms) = moved_ms(&clock, &own, off_ms, almost).await;
            // With clocks ahead, stamps follow at once; with clocks behind, decisions do. Both only keep
            // records longer.
            let followed_ms = off_ms - off_ms.signum() * TOLERATED_MS;
            let (want_stamps_ms, want_decisions_ms) = match off_ms > 0 {
                true => (followed_ms, 0),
                false => (0, followed_ms),
            };
            assert_eq!(
                (stamps_ms, decisions_ms),
                (want_stamps_ms, want_decisions_ms)
            );
            moved_ms(&clock, &own, off_ms, Duration::from_secs(5)).await;
            let off_own_ms = clock.now_ms() - clock.own_ms();
            assert_eq!(off_own_ms, clock.earliest_ms() - clock.own_ms());
            assert_eq!(off_own_ms, followed_ms);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn forged_reports_beside_true_ones_are_no_jump_that_lasts() {
        let (own, clock) = among(0, &[Some(0), Some(0)]);
        for _ in 0..3 {
            moved_ms(&clock, &own, YEAR_MS, JUMP_HELD / 2).await;
            assert!(clock.earliest_ms() <= clock.own_ms());
            moved_ms(&clock, &own, 0, Duration::from_secs(1)).await;
        }
        assert!(clock.earliest_ms() <= clock.own_ms());
    }

    #[tokio::test(start_paused = true)]
    async fn many_small_steps_go_no_faster_than_clocks_drift() {
        let (own, clock) = among(0, &[Some(0), Some(0)]);
        let mut off_ms = 0;
        for _ in 0..1_000 {
            off_ms += TOLERATED_MS / 2;
            moved_ms(&clock, &own, off_ms, Duration::from_secs(1)).await;
        }
        assert!(clock.earliest_ms() - clock.own_ms() <= TOLERATED_MS + 1_000_000 / DRIFT_ONE_IN);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_left_has_no_vote() {
        let (_, clock) = among(0, &[Some(0), Some(YEAR_MS), Some(YEAR_MS), Some(YEAR_MS)]);
        assert!(clock.said().earliest_ms() > 0);
        clock.set_others([NodeId(2), NodeId(3)].into_iter());
        clock.heard(NodeId(4), Some(YEAR_MS));
        let said = clock.said();
        assert_eq!((said.latest_ms(), said.earliest_ms()), (0, 0));
    }
}
