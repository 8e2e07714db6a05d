//! The clock by which a partition tells how long its producers have been silent.
//!
//! Leaders' wall clocks may be wrong by years, and the next leader's right again. A producer that is at
//! work must not be forgotten for that, so this clock goes by theirs, but never back, and on by no more
//! than a step between two batches. In a partition that gets few batches it is slow: such a one has few
//! producers to forget.

use prost::Message;

/// Ten minutes: no leader can make the partition a week older with fewer than a thousand batches.
const LONGEST_STEP_MS: i64 = 600_000;

/// As of the last batch.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Clock {
    /// What it says, in ms since 1970 or so.
    #[prost(sint64, tag = "1")]
    pub time_ms: i64,
    /// What the leader's wall clock said, in ms since 1970.
    #[prost(sint64, tag = "2")]
    pub leader_time_ms: i64,
}

impl Clock {
    pub(super) fn start(time_ms: i64, leader_time_ms: i64) -> Clock {
        Clock {
            time_ms,
            leader_time_ms,
        }
    }

    /// The clock as of the next batch.
    pub(super) fn after(self, leader_time_ms: i64) -> Clock {
        let passed_ms = leader_time_ms.saturating_sub(self.leader_time_ms);
        Clock {
            time_ms: self
                .time_ms
                .saturating_add(passed_ms.clamp(0, LONGEST_STEP_MS)),
            leader_time_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed_ms(leader_times_ms: &[i64]) -> i64 {
        let start = Clock::start(1_000, leader_times_ms[0]);
        let clock = leader_times_ms[1..].iter();
        clock
            .fold(start, |clock, time_ms| clock.after(*time_ms))
            .time_ms
            - 1_000
    }

    #[test]
    fn it_goes_with_a_leader_whose_clock_goes_right() {
        assert_eq!(passed_ms(&[50, 80, 80, 600_050]), 600_000);
    }

    #[test]
    fn it_neither_goes_back_nor_jumps_with_clocks_that_do() {
        let year_ms = 365 * 24 * 3_600_000;
        assert_eq!(
            passed_ms(&[0, year_ms, year_ms + 10, 30, 40]),
            LONGEST_STEP_MS + 20
        );
        assert_eq!(passed_ms(&[i64::MIN, i64::MAX, i64::MIN]), LONGEST_STEP_MS);
    }
}
