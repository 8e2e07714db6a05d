//! Trims follow the retention policy. Each trim in a log ends at the end of a segment. Settings that the
//! topic has, had, or may have had allow the trim, by age or by size.
//!
//! Leaders determine the age by the times that they write into the log, and so does the check.

use std::collections::BTreeMap;

use ropewalk_proto::command::Command;
use ropewalk_proto::ids::GroupId;
use ropewalk_proto::v1::TopicSettings;
use ropewalk_raft_store::inspect::Payload;

use super::{Check, Now};
use crate::history::{Call, Event};
use crate::observe::committed_model::Committed;

/// The check.
#[derive(Debug, Default)]
pub struct TrimsByPolicy {
    /// All settings that clients requested, by topic.
    settings: BTreeMap<u32, Vec<TopicSettings>>,
    logs: BTreeMap<GroupId, Segments>,
}

/// Segments of one group's log.
#[derive(Debug, Default)]
struct Segments {
    bytes: u64,
    next_offset: u64,
    /// Offset at which the last trim ended.
    log_start: u64,
    /// Time at which the latest batch of the active segment was appended.
    last_time_ms: Option<i64>,
    /// True if refused batches count like others.
    counts_refused: bool,
    ends: Vec<End>,
    /// Part of the log was never seen: bytes cannot be counted from its beginning.
    partial: bool,
}

/// The end of a segment.
#[derive(Debug, Clone, Copy)]
struct End {
    next_offset: u64,
    bytes: u64,
    last_time_ms: i64,
}

impl Check for TrimsByPolicy {
    fn name(&self) -> &'static str {
        "trims-by-policy"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for (_, event) in now.news {
            if let Event::Called {
                call:
                    Call::CreateTopic {
                        topic, settings, ..
                    }
                    | Call::AlterTopic { topic, settings },
                ..
            } = event
            {
                self.settings.entry(*topic).or_default().push(*settings);
            }
        }
        for one in now.fresh {
            let Some(place) = one.place else { continue };
            let log = self.logs.entry(one.group).or_default();
            log.partial |= one.after_a_gap;
            log.bytes += one.entry.bytes;
            let settings = self.settings.get(&place.topic);
            let settings = settings.map_or(&[][..], Vec::as_slice);
            log.take(one, settings).map_err(|what| {
                format!(
                    "{place} (group {}), log index {}: {what}",
                    one.group, one.entry.place.index
                )
            })?;
        }
        Ok(())
    }
}

impl Segments {
    fn take(&mut self, one: &Committed, settings: &[TopicSettings]) -> Result<(), String> {
        match &one.entry.payload {
            Payload::Command(Command::Append { stamp, .. } | Command::Compacted { stamp, .. }) => {
                self.counts_refused |= stamp.long_memory;
                if let Some(last) = one.records.last() {
                    self.next_offset = last.offset + 1;
                }
                if self.counts_refused || !one.records.is_empty() {
                    let before = self.last_time_ms.unwrap_or(stamp.leader_time_ms);
                    self.last_time_ms = Some(before.max(stamp.leader_time_ms));
                }
            }
            Payload::Command(Command::Roll { .. }) => {
                if let Some(last_time_ms) = self.last_time_ms.take() {
                    self.ends.push(End {
                        next_offset: self.next_offset,
                        bytes: self.bytes,
                        last_time_ms,
                    });
                }
            }
            Payload::Command(Command::Trim {
                leader_time_ms,
                to_offset,
            }) if !self.partial => {
                self.judge(*leader_time_ms, *to_offset, settings)?;
                self.log_start = self.log_start.max(*to_offset);
            }
            _ => {}
        }
        Ok(())
    }

    fn judge(&self, now_ms: i64, to_offset: u64, settings: &[TopicSettings]) -> Result<(), String> {
        let Some(end) = self.ends.iter().find(|end| end.next_offset == to_offset) else {
            return Err(format!(
                "a trim to offset {to_offset}, which is the end of no segment: {:?}",
                self.ends
            ));
        };
        // Segments without a record go at once, when no segment before them is kept.
        if to_offset <= self.log_start {
            return Ok(());
        }
        let age_ms = now_ms.saturating_sub(end.last_time_ms);
        let behind = self.bytes - end.bytes;
        let allowed = settings.iter().any(|one| {
            let too_old = one.retention_ms >= 0 && age_ms > one.retention_ms;
            let limit = u64::try_from(one.retention_bytes);
            too_old || limit.is_ok_and(|limit| behind >= limit)
        });
        if allowed {
            return Ok(());
        }
        Err(format!(
            "a trim to offset {to_offset}, whose last record is {age_ms} ms old with {behind} bytes behind it; allowed is {settings:?}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{Story, committed, of_command};

    /// A record at 0 ms, the end of a segment, another record, and a trim at 1,000 ms.
    fn judge(retention_ms: i64, retention_bytes: i64, to_offset: u64) -> Result<(), String> {
        let settings = TopicSettings {
            retention_ms,
            retention_bytes,
            ..TopicSettings::default()
        };
        let mut story = Story::of([Event::Called {
            number: 0,
            call: Call::CreateTopic {
                topic: 0,
                partitions: 1,
                settings,
            },
        }]);
        story.fresh = vec![
            committed(0, &[(1, 0)]),
            of_command(1, Command::Roll { leader_time_ms: 0 }),
            committed(1, &[(1, 1)]),
            of_command(
                3,
                Command::Trim {
                    leader_time_ms: 1_000,
                    to_offset,
                },
            ),
        ];
        story.look(&mut TrimsByPolicy::default())
    }

    #[test]
    fn what_is_too_old_or_too_much_may_go() {
        assert_eq!(judge(999, -1, 1), Ok(()));
        assert_eq!(judge(-1, 10, 1), Ok(()));
    }

    #[test]
    fn what_the_settings_keep_may_not() {
        assert!(judge(1_000, -1, 1).is_err());
        assert!(judge(-1, 1 << 20, 1).is_err());
        assert!(judge(-1, -1, 1).is_err());
    }

    #[test]
    fn a_trim_into_a_segment_is_found() {
        assert!(judge(0, 0, 2).is_err());
    }
}
