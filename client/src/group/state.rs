//! The partitions of a member and the order of their turns: picks the next record, and divides the memory for
//! fetching ahead among the partitions.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use super::assigned_partition::{AssignedPartition, Phase};
use super::assignment::TopicPartitionId;
use super::delivery::{Delivery, DoneToken};
use super::progress::Progress;
use super::readers::Readers;
use super::shared::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::reader::Reader;
use crate::record::ConsumedRecord;

/// Maximum number of consecutive records from one partition before another gets its turn.
const STREAK: u32 = 100;

/// Settings that all parts share.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub max_in_flight: usize,
    pub memory_bytes: usize,
    /// Session timeout, as requested or as the coordinator reported it.
    pub session: Duration,
}

#[derive(Debug)]
pub(super) struct State {
    pub parts: BTreeMap<TopicPartitionId, AssignedPartition>,
    pub generation: u64,
    /// Topics that the subscription names and that do not exist.
    pub missing: Vec<String>,
    /// Heartbeat interval of the coordinator; zero if it named none.
    pub heartbeat: Duration,
    pub member_id: String,
    pub readers: Readers,
    pub limits: Limits,
    /// Read failures that the member has not reported yet.
    pub unreadable: BTreeMap<TopicPartitionId, Error>,
    /// Send time of the last request that the coordinator has answered: the session timeout runs from here.
    pub heard_at: Instant,
    /// Time since which the application has left available records waiting.
    pub idle_since: Instant,
    pub last_life: u64,
    pub over: StreamEnd,
    pub waker: Option<Waker>,
    outstanding: usize,
    outstanding_bytes: usize,
    turn: Option<TopicPartitionId>,
    streak: u32,
}

/// State of the stream.
#[derive(Debug)]
pub(super) enum StreamEnd {
    No,
    Stopped,
    Failed { told: bool, error: Error },
}

impl State {
    pub fn new(readers: Readers, limits: Limits, member_id: String) -> State {
        let now = Instant::now();
        State {
            parts: BTreeMap::new(),
            generation: 0,
            missing: Vec::new(),
            heartbeat: Duration::ZERO,
            member_id,
            readers,
            limits,
            unreadable: BTreeMap::new(),
            heard_at: now,
            idle_since: now,
            last_life: 0,
            over: StreamEnd::No,
            waker: None,
            outstanding: 0,
            outstanding_bytes: 0,
            turn: None,
            streak: 0,
        }
    }

    pub fn is_full(&self) -> bool {
        self.outstanding >= self.limits.max_in_flight
            || self.outstanding_bytes >= self.limits.memory_bytes
    }

    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Records that a delivery is no longer outstanding.
    pub fn returned(&mut self, bytes: usize) {
        self.outstanding -= 1;
        self.outstanding_bytes -= bytes;
    }

    /// Starts another life of a partition.
    pub fn next_life(&mut self) -> u64 {
        self.last_life += 1;
        self.last_life
    }

    pub fn close_readers(&mut self) {
        for part in self.parts.values_mut() {
            part.stop_reading();
        }
    }

    /// Returns true if there is a record for the application, even if it must first finish others.
    pub fn has_waiting(&self) -> bool {
        let mut parts = self.parts.values().filter(|part| !part.paused);
        parts.any(|part| matches!(&part.phase, Phase::Reading(reader) if reader.has_waiting()))
    }

    pub fn poll_parts(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<(TopicPartitionId, Result<ConsumedRecord>)> {
        if self.streak >= STREAK {
            self.turn = self.after_turn();
            self.streak = 0;
        }
        let begin = self.turn.map_or(Bound::Unbounded, Bound::Included);
        let end = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        for range in [(begin, Bound::Unbounded), (Bound::Unbounded, end)] {
            for (place, part) in self.parts.range_mut(range) {
                let Some(reader) = part.reader() else {
                    continue;
                };
                let polled = reader.poll_next_unpin(context);
                let position = reader.position();
                if let Poll::Ready(next) = polled {
                    self.streak = if self.turn == Some(*place) {
                        self.streak + 1
                    } else {
                        1
                    };
                    self.turn = Some(*place);
                    return Poll::Ready((*place, next.unwrap_or_else(|| Err(ended()))));
                }
                if let Some(progress) = &mut part.progress {
                    progress.skipped_to(position);
                }
            }
        }
        Poll::Pending
    }

    fn after_turn(&self) -> Option<TopicPartitionId> {
        let turn = self.turn?;
        let after = (Bound::Excluded(turn), Bound::Unbounded);
        let next = self.parts.range(after).next();
        next.or_else(|| self.parts.first_key_value())
            .map(|(place, _)| *place)
    }

    pub fn hand_out(
        &mut self,
        shared: &Arc<Shared>,
        place: TopicPartitionId,
        record: ConsumedRecord,
    ) -> Option<Delivery> {
        let part = self.parts.get_mut(&place)?;
        part.progress.as_mut()?.handed_out(record.offset);
        let bytes = record.content_bytes();
        let ticket = DoneToken::new(shared.clone(), place, part.life, record.offset, bytes);
        let delivery = Delivery::new(part.name.topic.clone(), record, ticket);
        self.outstanding += 1;
        self.outstanding_bytes += bytes;
        Some(delivery)
    }

    /// Reopens the reader of a partition at its position.
    pub fn reopen(&mut self, place: TopicPartitionId) {
        let share = self.share_bytes();
        let Some(part) = self.parts.get_mut(&place) else {
            return;
        };
        if let Phase::Reading(reader) = &mut part.phase {
            let position = reader.position();
            **reader = self
                .readers
                .open(place.topic_id, &part.name, position, share);
        }
    }

    /// Stops reading a partition whose topic is gone.
    pub fn gone(&mut self, place: TopicPartitionId) {
        if let Some(part) = self.parts.get_mut(&place) {
            part.phase = Phase::Gone;
        }
    }

    /// Prepares partitions whose topic was gone for another try; returns true if there are any.
    pub fn try_gone(&mut self) -> bool {
        let mut any = false;
        for part in self.parts.values_mut() {
            if let Phase::Gone = part.phase {
                any = true;
                part.phase = match &part.progress {
                    Some(_) => Phase::Stopped,
                    None => Phase::Starting {
                        asked: false,
                        at: part.committed,
                    },
                };
            }
        }
        any
    }

    /// Bytes that one partition may fetch ahead. Powers of two keep the readers from restarting whenever a
    /// partition is added.
    fn share_bytes(&self) -> usize {
        let parts = self.parts.len().max(1).next_power_of_two();
        (self.limits.memory_bytes / parts).max(1)
    }

    /// Starts to read the partitions that have a position, and gives each its share of the memory.
    pub fn begin(&mut self) {
        let share = self.share_bytes();
        let anew = self.readers.share_bytes != share;
        self.readers.share_bytes = share;
        for (place, part) in &mut self.parts {
            let from = match &part.phase {
                Phase::Reading(reader) if anew => Some(reader.position()),
                _ => part.can_begin(),
            };
            let Some(from) = from.filter(|_| matches!(self.over, StreamEnd::No)) else {
                continue;
            };
            part.progress.get_or_insert_with(|| Progress::new(from));
            let reader = self.readers.open(place.topic_id, &part.name, from, share);
            part.phase = Phase::Reading(Box::new(reader));
        }
    }
}

impl AssignedPartition {
    fn reader(&mut self) -> Option<&mut Reader> {
        match &mut self.phase {
            Phase::Reading(reader) if !self.paused => Some(reader),
            _ => None,
        }
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Closed, "the reader of a partition has ended")
}
