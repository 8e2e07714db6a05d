//! One partition of a member: its phase, and the positions to commit or release.

use std::sync::Arc;

use ropewalk_proto::v1;
use tokio::time::Instant;

use super::assignment::{Standing, TopicPartitionId};
use super::progress::Progress;
use super::rebalance::TopicPartition;
use crate::reader::Reader;

/// Phase of a member's partition.
#[derive(Debug)]
pub(super) enum Phase {
    /// The member looks up the start offset: `asked` once the lookup has started, `at` its result.
    Starting { asked: bool, at: Option<u64> },
    /// The member reads. Boxed, since the other variants are small.
    Reading(Box<Reader>),
    /// The member does not read: the subscription ends, or the next reader is about to start at another
    /// offset.
    Stopped,
    /// The topic does not exist, or another topic has its name. The coordinator revokes the partition once it
    /// learns of that. The next heartbeat tries again, since the answer may have come from a node that is
    /// behind.
    Gone,
    /// The member waits for outstanding deliveries, at most until then.
    Revoked { until: Instant },
    /// The member has sent the release, and waits for the coordinator's answer.
    Releasing,
}

#[derive(Debug)]
pub(super) struct AssignedPartition {
    pub name: TopicPartition,
    pub epoch: u64,
    /// Distinguishes successive assignments of a partition in this subscription. A delivery counts only in
    /// the life in which it was made.
    pub life: u64,
    pub phase: Phase,
    /// None before reading starts.
    pub progress: Option<Progress>,
    /// The group's committed offset, as the coordinator has it.
    pub committed: Option<u64>,
    /// The coordinator refused the last commit. It is not retried at once.
    pub refused: bool,
    pub paused: bool,
}

/// A position on its way to the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub place: TopicPartitionId,
    pub epoch: u64,
    pub offset: u64,
}

impl From<Position> for v1::GroupPosition {
    fn from(position: Position) -> v1::GroupPosition {
        v1::GroupPosition {
            topic_id: position.place.topic_id,
            partition: position.place.partition,
            epoch: position.epoch,
            offset: position.offset,
            note: String::new(),
        }
    }
}

/// Selection of positions to commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Start positions of partitions without a committed offset.
    Starts,
    /// The start positions, and the last positions of revoked partitions.
    Due,
    /// All positions that have changed.
    All,
}

impl AssignedPartition {
    pub fn new(told: v1::Assigned, life: u64) -> AssignedPartition {
        AssignedPartition {
            name: TopicPartition {
                topic: Arc::from(told.topic),
                partition: told.partition,
            },
            epoch: told.epoch,
            life,
            phase: Phase::Starting {
                asked: false,
                at: told.committed,
            },
            progress: None,
            committed: told.committed,
            refused: false,
            paused: false,
        }
    }

    pub fn standing(&self) -> Standing {
        match self.phase {
            Phase::Starting { .. } | Phase::Reading(_) | Phase::Stopped | Phase::Gone => {
                Standing::Working
            }
            Phase::Revoked { .. } => Standing::GivingUp,
            Phase::Releasing => Standing::Released,
        }
    }

    /// Returns true if the partition was revoked, and no delivery is outstanding or the time is over.
    pub fn is_settled(&self, now: Instant) -> bool {
        let outstanding = self.progress.as_ref().map_or(0, Progress::outstanding);
        matches!(self.phase, Phase::Revoked { until } if outstanding == 0 || now >= until)
    }

    /// The position to commit now, unless the coordinator already has it.
    pub fn to_commit(&self, which: Which, now: Instant) -> Option<u64> {
        let wanted = match self.phase {
            Phase::Starting { .. } => true,
            Phase::Reading(_) | Phase::Stopped | Phase::Gone => which == Which::All,
            Phase::Revoked { .. } => {
                which == Which::All || which == Which::Due && self.is_settled(now)
            }
            Phase::Releasing => false,
        };
        let position = match (&self.phase, &self.progress) {
            (Phase::Starting { at, .. }, _) => *at,
            (_, progress) => progress.as_ref().map(Progress::position),
        };
        position.filter(|_| wanted && !self.refused && position != self.committed)
    }

    /// Stops reading. Outstanding deliveries may still be done.
    pub fn stop_reading(&mut self) {
        if let Phase::Reading(_) = self.phase {
            self.phase = Phase::Stopped;
        }
    }

    /// The start offset, once it is the group's committed offset.
    pub fn can_begin(&self) -> Option<u64> {
        match self.phase {
            Phase::Starting { at, .. } if at == self.committed => at,
            Phase::Stopped => self.progress.as_ref().map(Progress::next),
            _ => None,
        }
    }
}
