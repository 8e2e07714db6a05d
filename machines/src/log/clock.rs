//! The partition's own clock, which measures how long its producers have been silent.
//!
//! A leader's wall clock may be wrong by years, and the next leader's right again. An active producer must
//! not be forgotten for that. So this clock follows the leaders' clocks, but never goes back, and advances by
//! a bounded step between two batches. It is slow in a partition with few batches, which has few producers to
//! forget.

use prost::Message;
use ropewalk_proto::command::Stamp;
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};

/// Maximum step, ten minutes: no leader can age the partition by a week with fewer than a thousand batches.
const LONGEST_STEP_MS: i64 = 600_000;

/// The clock as of the last batch.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Clock {
    /// Time of this clock, in ms since about 1970.
    #[prost(sint64, tag = "1")]
    pub time_ms: i64,
    /// Time of the leader's wall clock, in ms since 1970.
    #[prost(sint64, tag = "2")]
    pub leader_time_ms: i64,
}

impl Clock {
    /// Returns the clock as of the next batch; `None` until a leader that knows this clock writes a batch.
    pub(super) fn next(
        clock: Option<Clock>,
        stamp: Stamp,
        newest_ms: Option<i64>,
    ) -> Option<Clock> {
        let leader_time_ms = stamp.leader_time_ms;
        match clock {
            _ if is_planted(PlantedBug::TrustTheClocks) => None,
            Some(clock) => Some(clock.after(leader_time_ms)),
            // A wall clock that was wrong before would age the producers that are active from here on.
            None => stamp.own_clock.then(|| Clock {
                time_ms: newest_ms
                    .map_or(leader_time_ms, |newest_ms| newest_ms.min(leader_time_ms)),
                leader_time_ms,
            }),
        }
    }

    fn after(self, leader_time_ms: i64) -> Clock {
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
    use crate::machine::Machine;
    use bytes::Bytes;
    use ropewalk_proto::batch::{BatchBuilder, Compression};
    use ropewalk_proto::command::{Command, Reply};
    use ropewalk_proto::error::ErrorCode;

    use super::*;
    use crate::log::PartitionMachine;
    use crate::log::keys::{Checkpoint, value};

    const DAYS_100_MS: i64 = 100 * 24 * 3_600_000;

    fn passed_ms(leader_times_ms: &[i64]) -> i64 {
        let start = Clock {
            time_ms: 1_000,
            leader_time_ms: leader_times_ms[0],
        };
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
        let jumps = [0, DAYS_100_MS, DAYS_100_MS + 10, 30, 40];
        assert_eq!(passed_ms(&jumps), LONGEST_STEP_MS + 20);
        assert_eq!(passed_ms(&[i64::MIN, i64::MAX, i64::MIN]), LONGEST_STEP_MS);
    }

    fn batch((producer, epoch, sequence): (i64, i16, i32)) -> Bytes {
        let mut batch = BatchBuilder::new(Compression::None, 1_000);
        assert!(batch.push(None, Some(b"v"), &[], 0).unwrap());
        batch.set_producer(producer, epoch, sequence);
        batch.build()
    }

    fn append((leader_time_ms, own_clock): (i64, bool), producer: (i64, i16, i32)) -> Command {
        Command::Append {
            stamp: Stamp {
                leader_time_ms,
                own_clock,
                ..Stamp::default()
            },
            batch: batch(producer),
        }
    }

    /// Applies these to a fresh partition, one after the other, and returns its replies.
    fn answers(appends: impl IntoIterator<Item = Command>) -> Vec<Reply> {
        let mut machine = PartitionMachine::default();
        let answers = (1..).zip(appends);
        let answers = answers.map(|(index, append)| machine.apply(index, 1, 10, Some(&append)));
        answers.map(|applied| applied.unwrap().reply).collect()
    }

    /// Returns the replies to a producer's batches around a batch from another, whose leader's clock is 100
    /// days ahead.
    fn answers_around_a_jump(own_clock: bool) -> Vec<Reply> {
        let batches = [
            (0, (7, 1, 0)),
            (DAYS_100_MS, (8, 0, 0)),
            (1, (7, 0, 0)),
            (2, (7, 1, 0)),
        ];
        answers(batches.map(|(time_ms, producer)| append((time_ms, own_clock), producer)))
    }

    #[test]
    fn a_leaders_clock_that_jumps_makes_a_partition_forget_no_producer() {
        let answers = answers_around_a_jump(true);
        assert!(
            matches!(&answers[2], Reply::Refused(error) if error.code == ErrorCode::ProducerFenced)
        );
        let again = Reply::Appended {
            base_offset: 0,
            duplicate: true,
        };
        assert_eq!(answers[3], again);
    }

    #[test]
    fn batches_of_older_leaders_go_by_leader_time_as_they_did() {
        let answers = answers_around_a_jump(false);
        assert!(matches!(
            answers[2],
            Reply::Appended {
                duplicate: false,
                ..
            }
        ));
    }

    #[test]
    fn it_begins_without_a_jump_whichever_clock_was_wrong_before() {
        let wrong_before = [(DAYS_100_MS, false), (0, false), (10, true), (20, true)];
        let wrong_now = [(0, false), (10, false), (i64::MAX, true), (20, true)];
        for leaders in [wrong_before, wrong_now] {
            let producers = [7, 9, 8, 9].map(|producer| (producer, 0, 0));
            let appends = leaders.into_iter().zip(producers);
            let answers = answers(appends.map(|(leader, producer)| append(leader, producer)));
            let again = Reply::Appended {
                base_offset: 1,
                duplicate: true,
            };
            assert_eq!(answers[3], again);
        }
    }

    #[test]
    fn a_state_that_has_one_says_that_an_older_build_cannot_read_it() {
        for (own_clock, version) in [(false, 1), (true, 2)] {
            let mut machine = PartitionMachine::default();
            let append = append((0, own_clock), (7, 0, 0));
            machine.apply(1, 1, 10, Some(&append)).unwrap();
            let checkpoint: Checkpoint = value(&machine.checkpoint()).unwrap();
            assert_eq!(checkpoint.version, version);
        }
    }
}
