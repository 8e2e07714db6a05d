//! Retention by age and size. The leader decides from its settings and clock; every replica trims by the
//! leader's entries in the log.
//!
//! Age counts from the append of a record, in leader time, and not from its own timestamp. So old records
//! that are published today are kept as long as any others.

use std::time::Duration;

use ropewalk_machines::log::PartitionMachine;
use ropewalk_machines::log::SegmentEnd;
use ropewalk_machines::meta::settings;
use ropewalk_proto::command::Command;
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use ropewalk_proto::v1::TopicSettings;

use super::{Partition, compaction};
use crate::raft::{self, Unanswered};

/// Timeout of a proposal; the next round repeats a proposal that failed.
const PROPOSE_WITHIN: Duration = Duration::from_secs(5);

/// Returns true if the active segment should end: it is full, or must end before it can be trimmed.
fn roll_is_due(machine: &PartitionMachine, settings: &TopicSettings, now_ms: i64) -> bool {
    let Some(since_ms) = machine.active_since_ms() else {
        return false;
    };
    let bytes = machine.active_bytes();
    let expired =
        settings.retention_ms >= 0 && now_ms.saturating_sub(since_ms) > settings.retention_ms;
    let too_much = limit(settings.retention_bytes).is_some_and(|limit| bytes > limit);
    expired || too_much || bytes >= settings.segment_bytes
}

/// Returns the new log start, if it is higher than the current one. Also returns one if the oldest segments
/// hold only group commands, whose results are in checkpoints.
fn trim_target(machine: &PartitionMachine, settings: &TopicSettings, now_ms: i64) -> Option<u64> {
    let expired = |last_time_ms: i64| {
        settings.retention_ms >= 0 && now_ms.saturating_sub(last_time_ms) > settings.retention_ms
    };
    let too_much = |bytes_behind: u64| {
        limit(settings.retention_bytes).is_some_and(|limit| bytes_behind >= limit)
    };
    let is_empty = |end: &SegmentEnd| end.next_offset <= machine.log_start();
    let gone = machine.segments().take_while(|end| {
        is_empty(end) || expired(end.last_time_ms) || too_much(machine.log_bytes() - end.log_bytes)
    });
    let gone = gone.count() + usize::from(is_planted(PlantedBug::TrimTooFar));
    let gone = machine.segments().take(gone);
    gone.last()
        .map(|end| end.next_offset.max(machine.log_start()))
}

/// Returns the same settings without limits on age and size.
fn unlimited(settings: TopicSettings) -> TopicSettings {
    TopicSettings {
        retention_ms: settings::UNLIMITED,
        retention_bytes: settings::UNLIMITED,
        ..settings
    }
}

/// Returns a limit in bytes; settings below 0 mean no limit.
fn limit(bytes: i64) -> Option<u64> {
    u64::try_from(bytes).ok()
}

impl Partition {
    /// Applies the topic's retention. Called on the leader.
    pub(super) async fn retain(&self) {
        let settings = *self.settings.read();
        let now_ms = self.host.clock.earliest_ms();
        let compacts = settings::compacts(&settings);
        let settings = match settings::deletes(&settings) {
            true => settings,
            false => unlimited(settings),
        };
        let roll_is_due = {
            let machine = self.replica.view.machine();
            roll_is_due(&machine, &settings, now_ms)
                || compacts && compaction::roll_is_due(&machine, now_ms)
        };
        if roll_is_due {
            self.housekeeping(Command::Roll {
                leader_time_ms: now_ms,
            })
            .await;
        }
        let target = trim_target(&self.replica.view.machine(), &settings, now_ms);
        if let Some(to_offset) = target {
            tracing::info!(partition = %self.id, to_offset, "trimming the log for retention");
            self.housekeeping(Command::Trim {
                leader_time_ms: now_ms,
                to_offset,
            })
            .await;
        }
        if compacts {
            self.ask_for_compaction(&settings, now_ms).await;
        }
    }

    /// Proposes a command on whose outcome no caller depends.
    pub(super) async fn housekeeping(&self, command: Command) {
        match raft::propose(&self.replica.raft, command, PROPOSE_WITHIN).await {
            Ok(_) => {}
            Err(Unanswered::Late) => tracing::debug!(
                partition = %self.id,
                "log maintenance command waits for a majority"
            ),
            Err(error) => tracing::debug!(
                partition = %self.id,
                %error,
                "log maintenance command failed; retrying later"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_machines::Machine;
    use ropewalk_proto::batch::{BatchBuilder, Compression};

    use ropewalk_proto::command::Stamp;

    use super::*;

    fn settings(retention_ms: i64, retention_bytes: i64) -> TopicSettings {
        TopicSettings {
            retention_ms,
            retention_bytes,
            segment_bytes: 10_000,
            ..Default::default()
        }
    }

    /// Four segments of one record and 1,000 bytes each, appended at 0, 100, 200 and 300 ms, and one such
    /// record behind them.
    fn machine() -> PartitionMachine {
        let mut machine = PartitionMachine::default();
        for n in 0..5u64 {
            let mut batch = BatchBuilder::new(Compression::None, 1_000);
            assert!(batch.push(None, Some(b"v"), &[], 0).unwrap());
            let leader_time_ms = n as i64 * 100;
            let append = Command::Append {
                stamp: Stamp {
                    leader_time_ms,
                    ..Stamp::default()
                },
                batch: batch.build(),
            };
            machine.apply(n * 2 + 1, 1, 1_000, Some(&append)).unwrap();
            if n < 4 {
                machine
                    .apply(n * 2 + 2, 1, 0, Some(&Command::Roll { leader_time_ms }))
                    .unwrap();
            }
        }
        machine
    }

    #[test]
    fn segments_go_when_their_last_record_is_too_old() {
        let machine = machine();
        assert_eq!(trim_target(&machine, &settings(1_000, -1), 1_000), None);
        assert_eq!(trim_target(&machine, &settings(1_000, -1), 1_101), Some(2));
        assert_eq!(trim_target(&machine, &settings(0, -1), 10_000), Some(4));
        assert_eq!(trim_target(&machine, &settings(-1, -1), i64::MAX), None);
    }

    #[test]
    fn segments_go_as_long_as_what_stays_is_enough() {
        let machine = machine();
        assert_eq!(trim_target(&machine, &settings(-1, 5_000), 0), None);
        assert_eq!(trim_target(&machine, &settings(-1, 4_000), 0), Some(1));
        assert_eq!(trim_target(&machine, &settings(-1, 2_500), 0), Some(2));
        assert_eq!(trim_target(&machine, &settings(-1, 0), 0), Some(4));
    }

    /// A batch of a producer, then ten of it that leave a gap, 1,000 bytes each.
    fn with_refused(long_memory: bool) -> PartitionMachine {
        let mut machine = PartitionMachine::default();
        for n in 0..11 {
            let mut batch = BatchBuilder::new(Compression::None, 1_000);
            assert!(batch.push(None, Some(b"v"), &[], 0).unwrap());
            batch.set_producer(7, 0, if n == 0 { 0 } else { 9 });
            let append = Command::Append {
                stamp: Stamp {
                    long_memory,
                    own_clock: true,
                    ..Stamp::default()
                },
                batch: batch.build(),
            };
            let index = machine.applied() + 1;
            machine.apply(index, 1, 1_000, Some(&append)).unwrap();
            if n == 0 {
                let roll = Command::Roll { leader_time_ms: 0 };
                machine.apply(index + 1, 1, 0, Some(&roll)).unwrap();
            }
        }
        machine
    }

    #[test]
    fn what_is_refused_in_the_log_counts_and_goes_like_records() {
        let settings = settings(-1, 2_500);
        let mut machine = with_refused(true);
        assert_eq!(machine.active_bytes(), 10_000);
        assert!(roll_is_due(&machine, &settings, 0));
        let roll = Command::Roll { leader_time_ms: 0 };
        machine.apply(13, 1, 0, Some(&roll)).unwrap();
        let to_offset = trim_target(&machine, &settings, 0).unwrap();
        let trim = Command::Trim {
            leader_time_ms: 0,
            to_offset,
        };
        machine.apply(14, 1, 0, Some(&trim)).unwrap();
        assert_eq!(machine.purgeable_index(), 13);
    }

    #[test]
    fn what_older_leaders_wrote_is_counted_as_they_did() {
        let machine = with_refused(false);
        assert_eq!(machine.active_bytes(), 0);
        assert!(!roll_is_due(&machine, &settings(-1, 2_500), 0));
    }

    #[test]
    fn a_segment_ends_when_it_is_full_old_or_over_the_limit() {
        let machine = machine();
        assert!(!roll_is_due(&machine, &settings(-1, -1), i64::MAX));
        assert!(!roll_is_due(&machine, &settings(100, 1_000), 500));
        assert!(roll_is_due(&machine, &settings(100, -1), 501));
        assert!(roll_is_due(&machine, &settings(-1, 999), 0));
        let full = TopicSettings {
            segment_bytes: 1_000,
            ..settings(-1, -1)
        };
        assert!(roll_is_due(&machine, &full, 0));
        assert!(!roll_is_due(&PartitionMachine::default(), &full, i64::MAX));
    }
}
