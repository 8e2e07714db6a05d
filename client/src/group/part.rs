//! One partition of a member: where it stands, and what of it may be committed or given up.

use std::sync::Arc;

use ropewalk_proto::v1;
use tokio::time::Instant;

use super::assignment::{Place, Standing};
use super::progress::Progress;
use super::rebalance::TopicPartition;
use crate::reader::Reader;

/// What a member does with a partition.
#[derive(Debug)]
pub(super) enum Phase {
    /// It finds out where to begin; whether that was asked for, and what came of it.
    Starting { asked: bool, at: Option<u64> },
    /// It reads. Boxed, since the rest is small.
    Reading(Box<Reader>),
    /// It reads no more, since the subscription ends; or not yet again, from another offset.
    Stopped,
    /// Its topic does not exist, or another has its name: the coordinator takes it away as soon as it hears
    /// of that. It is tried again with the next heartbeat, since a node that is behind may have said so.
    Gone,
    /// It waits for what is out, at most until then.
    Revoked { until: Instant },
    /// It has told the coordinator, and waits to hear that it was understood.
    Releasing,
}

#[derive(Debug)]
pub(super) struct Part {
    pub name: TopicPartition,
    pub epoch: u64,
    /// Told apart from every other life of a partition in this subscription: a delivery counts only
    /// in the one it came from.
    pub life: u64,
    pub phase: Phase,
    /// None before anything was read.
    pub progress: Option<Progress>,
    /// What the coordinator has as the group's position.
    pub committed: Option<u64>,
    /// The coordinator refused the last commit. It is not repeated at once.
    pub refused: bool,
    pub paused: bool,
}

/// A position on its way to the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub place: Place,
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

/// What of the positions is to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Where reading begins in partitions without a position.
    Starts,
    /// Those, and the last word on partitions that are given up.
    Due,
    /// All that have moved.
    All,
}

impl Part {
    pub fn new(told: v1::Assigned, life: u64) -> Part {
        Part {
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

    /// Whether it was revoked and nothing more comes of it.
    pub fn is_settled(&self, now: Instant) -> bool {
        let outstanding = self.progress.as_ref().map_or(0, Progress::outstanding);
        matches!(self.phase, Phase::Revoked { until } if outstanding == 0 || now >= until)
    }

    /// The position to commit now, unless the coordinator has it already.
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

    /// No more records of it come. What is out may still be done.
    pub fn stop_reading(&mut self) {
        if let Phase::Reading(_) = self.phase {
            self.phase = Phase::Stopped;
        }
    }

    /// Where to begin to read, once the group has it as its position.
    pub fn can_begin(&self) -> Option<u64> {
        match self.phase {
            Phase::Starting { at, .. } if at == self.committed => at,
            Phase::Stopped => self.progress.as_ref().map(Progress::next),
            _ => None,
        }
    }
}
