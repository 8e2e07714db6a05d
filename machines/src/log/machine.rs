//! State machine of a partition: assigns offsets, remembers producers, and knows how far the log may be
//! purged. Pure: the same entries produce the same state on every replica, so this code reads no setting and
//! no clock. The leader makes the decisions that depend on those, and writes them into the log.
//!
//! Records are not here: they stay in the Raft log, the only place they are ever written to.

use bytes::Bytes;
use prost::Message;
use ropewalk_proto::batch::BatchView;
use ropewalk_proto::command::{COMMAND_VERSION, Command, CommandError, KIND_GROUP, Reply, Stamp};
use ropewalk_proto::error::WireError;
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use ropewalk_proto::v1::GroupCommand;

use super::clock::Clock;
use super::epochs::Epochs;
use super::keys::{
    ActiveSegment, CLOCK_VERSION, Checkpoint, Compaction, Key, LogHeader, MEMORY_VERSION,
    OffsetIndexEntry, Pair, STATE_VERSION, SegmentEnd, StateWrites, check_version, damaged, value,
};
use super::offset_index::{Offsets, ScanStart};
use super::producers::{BatchIdentity, Most, Producers, SequenceCheck};
use super::segments::Segments;
use super::stale_ring;
use crate::consumer_group::{self, Groups};
use crate::machine::{Applied, Machine, MachineError, StateWrite};

/// State of one partition as of one applied log index.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionMachine {
    core: LogHeader,
    offsets: Offsets,
    producers: Producers,
    segments: Segments,
    epochs: Epochs,
    groups: Groups,
}

impl Default for PartitionMachine {
    fn default() -> PartitionMachine {
        PartitionMachine {
            core: LogHeader {
                version: STATE_VERSION,
                ..LogHeader::default()
            },
            offsets: Offsets::default(),
            producers: Producers::default(),
            segments: Segments::default(),
            epochs: Epochs::default(),
            groups: Groups::default(),
        }
    }
}

/// Queries, for the read path, the write path and the leader's housekeeping.
impl PartitionMachine {
    /// Log index of this state.
    pub fn applied(&self) -> u64 {
        self.core.applied
    }

    /// Offset of the next record: the high watermark, since everything below it is committed.
    pub fn next_offset(&self) -> u64 {
        self.core.next_offset
    }

    /// First offset that may still be read.
    pub fn log_start(&self) -> u64 {
        self.core.log_start
    }

    /// Leader epoch, which is the Raft term, of the latest entry.
    pub fn latest_epoch(&self) -> u64 {
        self.epochs.latest()
    }

    /// Leader epoch in which `offset` was, or will be, assigned; 0 if it is no longer known.
    pub fn epoch_of(&self, offset: u64) -> u64 {
        self.epochs.of(offset)
    }

    /// Highest record timestamp so far.
    pub fn max_timestamp_ms(&self) -> Option<i64> {
        self.core.max_timestamp_ms
    }

    /// Returns the log position from which to look for `offset`; `None` if it is not in the log.
    pub fn locate(&self, offset: u64) -> Option<ScanStart> {
        let kept = (self.core.log_start..self.core.next_offset).contains(&offset);
        kept.then(|| self.offsets.before(offset)).flatten()
    }

    /// Returns where to look for the first record at or after `time_ms`; `None` if the log is empty.
    pub fn locate_time(&self, time_ms: i64) -> Option<ScanStart> {
        let first = self.locate(self.core.log_start)?;
        let start = self.offsets.before_time(time_ms)?;
        Some(if start.base_offset > first.base_offset {
            start
        } else {
            first
        })
    }

    /// Returns true if the append at `log_index` was refused, and so has no offset.
    pub fn is_refused(&self, log_index: u64) -> bool {
        self.offsets.is_refused(log_index)
    }

    /// Last fence: the oldest ring version that is still accepted, and the first offset behind the fence.
    pub fn fence(&self) -> (u32, u64) {
        (self.core.ring_version, self.core.fence_offset)
    }

    /// Target of compaction, the same on every replica. Each replica rewrites its log by itself.
    pub fn compaction(&self) -> Compaction {
        self.core.compaction.unwrap_or_default()
    }

    /// Log index and offset at which the log begins once everything purgeable is purged.
    pub fn beginning(&self) -> ScanStart {
        let purgeable = self.core.purgeable;
        ScanStart {
            log_index: purgeable.map_or(0, |end| end.end_index + 1),
            base_offset: purgeable.map_or(0, |end| end.next_offset),
        }
    }

    /// Consumer groups coordinated by the leader of this partition.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Returns the offset of a batch that is in the log already, as known from its producer's state.
    pub fn committed_duplicate(&self, batch: &BatchView) -> Option<u64> {
        match self.producers.judge(&BatchIdentity::of(batch)?) {
            SequenceCheck::Duplicate(base_offset) => Some(base_offset),
            SequenceCheck::Accept | SequenceCheck::Refuse(_) => None,
        }
    }

    /// Checks a batch against the committed state.
    pub fn judge(&self, claim: &BatchIdentity) -> SequenceCheck {
        self.producers.judge(claim)
    }

    /// Returns the refusal of a batch routed by this ring, if a later fence excludes it.
    pub fn refuses_ring(&self, ring_version: u32) -> Option<WireError> {
        let oldest = self.core.ring_version;
        let stale = ring_version != 0 && ring_version < oldest;
        (stale && !is_planted(PlantedBug::FenceIgnored)).then(|| stale_ring(ring_version, oldest))
    }

    /// Ends of the kept segments, the oldest first, without the active one.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentEnd> {
        self.segments.iter()
    }

    /// Bytes of the whole log, including the trimmed part; comparable with [`SegmentEnd::log_bytes`].
    pub fn log_bytes(&self) -> u64 {
        self.core.log_bytes
    }

    /// Bytes of the active segment; 0 while it holds no batch and no group command.
    pub fn active_bytes(&self) -> u64 {
        match self.core.active {
            Some(_) => self.core.log_bytes - self.last_boundary().log_bytes,
            None => 0,
        }
    }

    /// Leader time of the first append to the active segment.
    pub fn active_since_ms(&self) -> Option<i64> {
        self.core.active.map(|active| active.first_time_ms)
    }

    /// End of the last ended segment; the beginning of the log if there is none.
    pub fn last_boundary(&self) -> SegmentEnd {
        self.segments
            .last()
            .copied()
            .or(self.core.purgeable)
            .unwrap_or_default()
    }
}

/// Effects of entries.
impl PartitionMachine {
    fn append(
        &mut self,
        log_bytes_before: u64,
        stamp: Stamp,
        batch: &Bytes,
        effects: &mut StateWrites,
    ) -> Result<Reply, MachineError> {
        let index = self.core.applied;
        let batch = BatchView::trusted(batch.clone())
            .map_err(|error| damaged(format!("entry {index}: {error}")))?;
        // Not the number of records: compaction may have removed any of them.
        if batch.offset_count() == 0 {
            return Err(damaged(format!("entry {index} holds no records")));
        }
        if stamp.long_memory {
            self.core.needs(MEMORY_VERSION);
        }
        let claim = BatchIdentity::of(&batch);
        if let Some(reply) = self.without_offset(claim.as_ref(), stamp) {
            self.pass_over(stamp, effects);
            return Ok(reply);
        }
        Ok(self.accept(log_bytes_before, stamp, &batch, claim.as_ref(), effects))
    }

    /// Returns the reply to a batch that gets no offset, because it is a duplicate or is refused.
    fn without_offset(&self, claim: Option<&BatchIdentity>, stamp: Stamp) -> Option<Reply> {
        match claim.map_or(SequenceCheck::Accept, |claim| self.producers.judge(claim)) {
            // Checked after duplicates: a batch written before the fence keeps its offset.
            SequenceCheck::Accept => self.refuses_ring(stamp.ring_version).map(Reply::Refused),
            SequenceCheck::Duplicate(base_offset) => Some(Reply::Appended {
                base_offset,
                duplicate: true,
            }),
            SequenceCheck::Refuse(error) => Some(Reply::Refused(error)),
        }
    }

    /// Assigns offsets to a batch, and remembers its producer.
    fn accept(
        &mut self,
        log_bytes_before: u64,
        stamp: Stamp,
        batch: &BatchView,
        claim: Option<&BatchIdentity>,
        effects: &mut StateWrites,
    ) -> Reply {
        let base_offset = self.core.next_offset;
        let point = OffsetIndexEntry {
            log_index: self.core.applied,
            base_offset,
            log_bytes: log_bytes_before,
            max_timestamp_before_ms: self.core.max_timestamp_ms,
        };
        self.offsets
            .accepted(point, self.last_boundary().end_index, effects);
        let now_ms = self.tick(stamp);
        if let Some(claim) = claim {
            let most = Most::of(self.has_long_memory());
            self.producers
                .remember(claim, base_offset, now_ms, most, effects);
        }
        self.core.next_offset += u64::from(batch.offset_count());
        let newest_ms = Some(batch.max_timestamp_ms());
        self.core.max_timestamp_ms = self.core.max_timestamp_ms.max(newest_ms);
        self.begin_segment(stamp.leader_time_ms);
        Reply::Appended {
            base_offset,
            duplicate: false,
        }
    }

    /// Records a batch without offset. Its bytes are in the log all the same, so its segment ends and is
    /// deleted as if it held records.
    fn pass_over(&mut self, stamp: Stamp, effects: &mut StateWrites) {
        self.offsets.refused(self.core.applied, effects);
        if self.has_long_memory() {
            self.begin_segment(stamp.leader_time_ms);
        }
    }

    /// Returns true once a batch came with [`Stamp::long_memory`], or a command by which groups are in parts.
    fn has_long_memory(&self) -> bool {
        self.core.version >= MEMORY_VERSION
    }

    /// Advances the clock for producer expiry to a new batch, and returns its time.
    fn tick(&mut self, stamp: Stamp) -> i64 {
        let clock = Clock::next(self.core.clock, stamp, self.producers.newest_ms());
        if clock.is_some() {
            self.core.needs(CLOCK_VERSION);
            self.core.clock = clock;
        }
        clock.map_or(stamp.leader_time_ms, |clock| clock.time_ms)
    }

    /// Extends the active segment, or begins it, with an append at this time.
    fn begin_segment(&mut self, time_ms: i64) {
        let active = self.core.active.get_or_insert(ActiveSegment {
            first_time_ms: time_ms,
            last_time_ms: time_ms,
        });
        active.last_time_ms = active.last_time_ms.max(time_ms);
    }

    /// Applies a command of a consumer group. The command is never read from the log again, so its result is
    /// in every checkpoint.
    fn group(
        &mut self,
        command: &GroupCommand,
        effects: &mut StateWrites,
    ) -> Result<Reply, MachineError> {
        let reply = self.groups.apply(command, &mut effects.0);
        self.begin_segment(command.leader_time_ms);
        self.core.needs_rules(command.rules);
        let newer = || CommandError::Newer {
            version: COMMAND_VERSION,
            kind: KIND_GROUP,
        };
        Ok(Reply::Group(reply.ok_or_else(newer)?))
    }

    /// Ends the active segment; does nothing if it is empty.
    fn roll(&mut self, effects: &mut StateWrites) -> bool {
        let Some(active) = self.core.active.take() else {
            return false;
        };
        self.segments
            .end(self.boundary_here(active.last_time_ms), effects);
        true
    }

    fn boundary_here(&self, last_time_ms: i64) -> SegmentEnd {
        SegmentEnd {
            end_index: self.core.applied,
            next_offset: self.core.next_offset,
            log_bytes: self.core.log_bytes,
            last_time_ms,
        }
    }

    fn trim(&mut self, to_offset: u64, effects: &mut StateWrites) {
        if is_planted(PlantedBug::DropTrims) {
            return;
        }
        self.core.log_start = to_offset.clamp(self.core.log_start, self.core.next_offset);
        if let Some(boundary) = self.segments.forget(self.core.log_start, effects) {
            self.core.purgeable = Some(boundary);
            self.offsets.forget(boundary.end_index, effects);
        }
        self.epochs.forget(self.core.log_start, effects);
    }

    fn compact(&mut self, leader_time_ms: i64, to_offset: u64, tombstones_below: u64) {
        let mut ends = self.segments.iter();
        let end = ends.rfind(|end| end.next_offset <= to_offset);
        let asked = self.compaction();
        self.core.compaction = Some(asked.after(end, tombstones_below, leader_time_ms));
    }

    fn read(pairs: Vec<(Bytes, Bytes)>) -> Result<PartitionMachine, MachineError> {
        let mut machine = PartitionMachine::default();
        let mut groups = consumer_group::Loader::default();
        for (key, bytes) in pairs {
            if consumer_group::is_key(&key) {
                groups.load(&key, &bytes)?;
                continue;
            }
            match Key::decode(&key)? {
                Key::LogHeader => machine.core = LogHeader::read(&bytes)?,
                Key::OffsetIndexEntry(_) => machine.offsets.load_point(value(&bytes)?)?,
                Key::Refused(_) if is_planted(PlantedBug::ForgetRefusals) => {}
                Key::Refused(index) => machine.offsets.load_refused(index),
                Key::Batch(..) if is_planted(PlantedBug::LoseProducers) => {}
                Key::Batch(producer, slot) => {
                    machine.producers.load(producer, slot, value(&bytes)?)
                }
                Key::SegmentEnd(_) => machine.segments.load(value(&bytes)?)?,
                Key::Epoch(_) => machine.epochs.load(value(&bytes)?)?,
            }
        }
        machine.producers.loaded();
        machine.groups = groups.finish()?;
        Ok(machine)
    }
}

impl Machine for PartitionMachine {
    fn load(&mut self, applied: u64, effects: Vec<(Bytes, Bytes)>) -> Result<(), MachineError> {
        *self = PartitionMachine::read(effects)?;
        self.core.applied = applied;
        Ok(())
    }

    fn apply(
        &mut self,
        index: u64,
        term: u64,
        entry_bytes: u64,
        command: Option<&Command>,
    ) -> Result<Applied, MachineError> {
        let mut effects = StateWrites::default();
        if is_planted(PlantedBug::OffsetGap) && term > self.epochs.latest() {
            self.core.next_offset += 1;
        }
        self.epochs
            .observe(term, self.core.next_offset, &mut effects)?;
        let log_bytes_before = self.core.log_bytes;
        self.core.applied = index;
        self.core.log_bytes += entry_bytes;
        let mut checkpoint = false;
        let reply = match command {
            None => Reply::Done,
            Some(Command::Append { stamp, batch } | Command::Compacted { stamp, batch, .. }) => {
                self.append(log_bytes_before, *stamp, batch, &mut effects)?
            }
            Some(Command::Fence { ring_version, .. }) => {
                if *ring_version > self.core.ring_version {
                    self.core.ring_version = *ring_version;
                    self.core.fence_offset = self.core.next_offset;
                }
                Reply::Done
            }
            Some(Command::Trim { to_offset, .. }) => {
                self.trim(*to_offset, &mut effects);
                Reply::Done
            }
            Some(Command::Compact {
                leader_time_ms,
                to_offset,
                tombstones_below,
            }) => {
                self.compact(*leader_time_ms, *to_offset, *tombstones_below);
                Reply::Done
            }
            Some(Command::Roll { .. }) => {
                checkpoint = self.roll(&mut effects);
                Reply::Done
            }
            Some(Command::Group(command)) => self.group(command, &mut effects)?,
            Some(Command::Meta(_)) => {
                return Err(damaged(format!("entry {index} is a metadata command")));
            }
        };
        assert_eq!(self.core.check(), Ok(()));
        effects.put(Key::LogHeader, &self.core);
        Ok(Applied {
            reply,
            effects: effects.0,
            checkpoint,
        })
    }

    /// Builds the Raft snapshot for a replica whose log begins right after this index. Such a replica never has
    /// the log before it, so its log start is the next offset. A leader sends a snapshot only once its own log
    /// start has passed this point. The trim that raised the log start follows in the log.
    fn checkpoint(&self) -> Bytes {
        let last_time_ms = self.last_boundary().last_time_ms;
        let mut effects = StateWrites::default();
        if !is_planted(PlantedBug::CheckpointWithoutProducers) {
            self.producers.store(&mut effects);
        }
        if let Some(epoch) = self.epochs.last() {
            effects.put(Key::Epoch(epoch.term), epoch);
        }
        self.groups.store(&mut effects.0);
        let core = LogHeader {
            log_start: self.core.next_offset,
            active: None,
            purgeable: Some(self.boundary_here(last_time_ms)),
            ..self.core
        };
        effects.put(Key::LogHeader, &core);
        let pair = |effect: StateWrite| {
            Some(Pair {
                key: effect.key,
                value: effect.value?,
            })
        };
        let pairs = effects.0.into_iter().filter_map(pair).collect();
        Checkpoint {
            version: self.core.version,
            pairs,
        }
        .encode_to_vec()
        .into()
    }

    fn restore(&mut self, checkpoint: Bytes) -> Result<Vec<StateWrite>, MachineError> {
        let checkpoint: Checkpoint = value(&checkpoint)?;
        check_version(checkpoint.version)?;
        let effects = checkpoint.pairs.iter().map(|pair| StateWrite {
            key: pair.key.clone(),
            value: Some(pair.value.clone()),
        });
        let effects = effects.collect();
        let pairs = checkpoint
            .pairs
            .into_iter()
            .map(|pair| (pair.key, pair.value));
        *self = PartitionMachine::read(pairs.collect())?;
        Ok(effects)
    }

    fn purgeable_index(&self) -> u64 {
        self.core.purgeable.map_or(0, |boundary| boundary.end_index)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
