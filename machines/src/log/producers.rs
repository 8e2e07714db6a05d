//! The last batches of idempotent producers: enough to answer a duplicate batch with its first offset, and to
//! refuse a batch after a gap. The rules are Kafka's.
//!
//! The table is part of the replicated state, so its bounds are constants and its only clock is the
//! partition's own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ropewalk_proto::batch::BatchView;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};

use super::keys::{BATCHES_REMEMBERED, Key, ProducerBatch, StateWrites};

/// Producers for which one partition remembers more than the last batch. Past that, it drops all but the last
/// batch of the producer that was silent for longest.
const PRODUCERS_REMEMBERED: usize = 10_000;
/// Producers for which one partition remembers at least the last batch, in about 40 bytes. Past that, it
/// forgets the one that was silent for longest.
const TRACES_REMEMBERED: usize = 100_000;
/// Silence after which a producer is forgotten.
const FORGOTTEN_AFTER_MS: i64 = 7 * 24 * 3_600_000;
/// Maximum producers that one entry forgets, and maximum that it reduces to their last batch.
const FORGOTTEN_AT_ONCE: usize = 8;

/// Producer identity of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchIdentity {
    pub producer: i64,
    pub epoch: i16,
    pub first_sequence: i32,
    pub count: u32,
}

/// Verdict on a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SequenceCheck {
    /// The batch is the next one.
    Accept,
    /// The batch is in the log already, at this offset.
    Duplicate(u64),
    /// The batch must not be in the log.
    Refuse(WireError),
}

/// Bounds of the table, which follow from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Most {
    /// Producers with more than their last batch.
    pub whole: usize,
    /// All producers.
    pub all: usize,
}

impl Most {
    pub(super) const fn of(has_long_memory: bool) -> Most {
        let traces = if has_long_memory {
            TRACES_REMEMBERED
        } else {
            0
        };
        Most {
            whole: PRODUCERS_REMEMBERED,
            all: PRODUCERS_REMEMBERED + traces,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Producers {
    by_id: BTreeMap<i64, Producer>,
    /// Producers by the time of their last batch: time and id.
    by_time: BTreeSet<(i64, i64)>,
    /// The same, for producers with more than one batch.
    whole_by_time: BTreeSet<(i64, i64)>,
}

/// One producer: the batches of its current epoch, the oldest first. On disk they are in a ring of slots, so
/// that an append writes one small value.
#[derive(Debug, Clone, Default, PartialEq)]
struct Producer {
    newest_slot: u8,
    batches: VecDeque<ProducerBatch>,
}

impl Producers {
    /// Judges a batch by the committed state; changes nothing.
    pub(super) fn judge(&self, claim: &BatchIdentity) -> SequenceCheck {
        match self
            .by_id
            .get(&claim.producer)
            .and_then(|known| known.batches.back().zip(Some(known)))
        {
            None => claim.begins(),
            Some((last, _)) if claim.epoch as i32 > last.epoch => claim.begins(),
            Some((last, _))
                if (claim.epoch as i32) < last.epoch && is_planted(PlantedBug::NoFencing) =>
            {
                SequenceCheck::Accept
            }
            Some((last, _)) if (claim.epoch as i32) < last.epoch => claim.fenced(last.epoch),
            Some((last, known)) => claim.continues(last, known),
        }
    }

    /// Remembers an accepted batch. Past the bounds of `most`, drops state of the producers that were silent
    /// for longest.
    pub(super) fn remember(
        &mut self,
        claim: &BatchIdentity,
        base_offset: u64,
        time_ms: i64,
        most: Most,
        effects: &mut StateWrites,
    ) {
        let batch = ProducerBatch {
            epoch: claim.epoch.into(),
            first_sequence: claim.first_sequence,
            count: claim.count,
            base_offset,
            time_ms,
        };
        let known = self.by_id.entry(claim.producer).or_default();
        if let Some(last) = known.batches.back() {
            let before = (last.time_ms, claim.producer);
            self.by_time.remove(&before);
            self.whole_by_time.remove(&before);
        }
        for slot in known.begin_epoch(batch.epoch) {
            effects.remove(Key::Batch(claim.producer, slot));
        }
        known.push(batch);
        effects.put(Key::Batch(claim.producer, known.newest_slot), &batch);
        let is_whole = known.is_whole();
        self.place((time_ms, claim.producer), is_whole);
        self.cut_down(claim.producer, most.whole, effects);
        self.forget_silent(time_ms, claim.producer, most.all, effects);
    }

    fn place(&mut self, at: (i64, i64), is_whole: bool) {
        self.by_time.insert(at);
        if is_whole {
            self.whole_by_time.insert(at);
        }
    }

    /// Time of the latest batch of any producer.
    pub(super) fn newest_ms(&self) -> Option<i64> {
        self.by_time.last().map(|(time_ms, _)| *time_ms)
    }

    /// Reduces producers past `most` to their last batch, those silent for longest first.
    fn cut_down(&mut self, writing: i64, most: usize, effects: &mut StateWrites) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            if self.whole_by_time.len() <= most {
                return;
            }
            let Some(oldest) = oldest(&self.whole_by_time, writing) else {
                return;
            };
            self.whole_by_time.remove(&oldest);
            let (_, producer) = oldest;
            if let Some(known) = self.by_id.get_mut(&producer) {
                for slot in known.cut_down() {
                    effects.remove(Key::Batch(producer, slot));
                }
            }
        }
    }

    fn forget_silent(&mut self, now_ms: i64, writing: i64, most: usize, effects: &mut StateWrites) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            let Some((time_ms, producer)) = oldest(&self.by_time, writing) else {
                return;
            };
            let expired = now_ms.saturating_sub(time_ms) > FORGOTTEN_AFTER_MS;
            if !expired && self.by_id.len() <= most {
                return;
            }
            self.by_time.remove(&(time_ms, producer));
            self.whole_by_time.remove(&(time_ms, producer));
            self.by_id.remove(&producer);
            for slot in 0..BATCHES_REMEMBERED {
                effects.remove(Key::Batch(producer, slot));
            }
        }
    }

    /// Loads one value from disk; [`Producers::loaded`] must follow the last.
    pub(super) fn load(&mut self, producer: i64, slot: u8, batch: ProducerBatch) {
        let known = self.by_id.entry(producer).or_default();
        if known
            .batches
            .iter()
            .all(|other| other.base_offset < batch.base_offset)
        {
            known.newest_slot = slot;
        }
        known.batches.push_back(batch);
    }

    /// Sorts the loaded state. Slots that still hold an older epoch are ignored.
    pub(super) fn loaded(&mut self) {
        for (producer, known) in &mut self.by_id {
            known
                .batches
                .make_contiguous()
                .sort_by_key(|batch| batch.base_offset);
            let Some(last) = known.batches.back().copied() else {
                continue;
            };
            known.batches.retain(|batch| batch.epoch == last.epoch);
            self.by_time.insert((last.time_ms, *producer));
            if known.is_whole() {
                self.whole_by_time.insert((last.time_ms, *producer));
            }
        }
    }

    /// Writes everything to `effects`, slot by slot.
    pub(super) fn store(&self, effects: &mut StateWrites) {
        for (&producer, known) in &self.by_id {
            for (age, batch) in (0u8..).zip(known.batches.iter().rev()) {
                effects.put(Key::Batch(producer, known.slot(age)), batch);
            }
        }
    }
}

/// Returns time and id of the producer that was silent for longest, except the one that is writing.
fn oldest(by_time: &BTreeSet<(i64, i64)>, writing: i64) -> Option<(i64, i64)> {
    let mut oldest = by_time.iter();
    oldest.find(|(_, producer)| *producer != writing).copied()
}

impl Producer {
    /// Returns true if more than the last batch is remembered.
    fn is_whole(&self) -> bool {
        self.batches.len() > 1
    }

    /// Slot of the batch that came this many before the newest.
    fn slot(&self, age: u8) -> u8 {
        (self.newest_slot + BATCHES_REMEMBERED - age) % BATCHES_REMEMBERED
    }

    /// Drops all but the last batch; returns the slots of the others.
    fn cut_down(&mut self) -> Vec<u8> {
        let slots = self.slots(1);
        self.batches.drain(..self.batches.len().saturating_sub(1));
        self.batches.shrink_to_fit();
        slots
    }

    /// Slots of the batches that came this many before the newest, or earlier.
    fn slots(&self, from_age: u8) -> Vec<u8> {
        let count = u8::try_from(self.batches.len()).unwrap_or(BATCHES_REMEMBERED);
        (from_age..count).map(|age| self.slot(age)).collect()
    }

    /// Drops the batches of another epoch; returns their slots.
    fn begin_epoch(&mut self, epoch: i32) -> Vec<u8> {
        let last = self.batches.back();
        if last.is_none_or(|last| last.epoch == epoch) {
            return Vec::new();
        }
        let slots = self.slots(0);
        self.batches.clear();
        slots
    }

    fn push(&mut self, batch: ProducerBatch) {
        if self.batches.len() == usize::from(BATCHES_REMEMBERED) {
            self.batches.pop_front();
        }
        self.newest_slot = (self.newest_slot + 1) % BATCHES_REMEMBERED;
        self.batches.push_back(batch);
    }
}

impl BatchIdentity {
    /// Returns the claim of a batch; `None` for a producer without idempotence.
    pub fn of(batch: &BatchView) -> Option<BatchIdentity> {
        (batch.producer_id() >= 0).then(|| BatchIdentity {
            producer: batch.producer_id(),
            epoch: batch.producer_epoch(),
            first_sequence: batch.base_sequence(),
            count: batch.offset_count(),
        })
    }

    /// Sequence of the batch that follows.
    pub fn next_sequence(&self) -> i32 {
        sequence_after(self.first_sequence, self.count)
    }

    /// Judges the first batch of a producer or epoch, which must have sequence 0.
    fn begins(&self) -> SequenceCheck {
        if self.first_sequence == 0 {
            return SequenceCheck::Accept;
        }
        self.refuse(
            ErrorCode::UnknownProducer,
            "is unknown here, so its first sequence must be 0; take a new epoch and start at 0"
                .into(),
        )
    }

    fn fenced(&self, current: i32) -> SequenceCheck {
        self.refuse(
            ErrorCode::ProducerFenced,
            format!(
                "is fenced by epoch {current}; stop this producer, a newer instance has replaced it"
            ),
        )
    }

    fn continues(&self, last: &ProducerBatch, known: &Producer) -> SequenceCheck {
        let next = sequence_after(last.first_sequence, last.count);
        if self.first_sequence == next {
            return SequenceCheck::Accept;
        }
        let same = |batch: &&ProducerBatch| {
            batch.first_sequence == self.first_sequence && batch.count == self.count
        };
        if let Some(batch) = known.batches.iter().find(same) {
            return match is_planted(PlantedBug::NoDeduplication) {
                false => SequenceCheck::Duplicate(batch.base_offset),
                true => SequenceCheck::Accept,
            };
        }
        if is_behind(self.first_sequence, next) {
            return self.refuse(
                ErrorCode::DuplicateSequence,
                format!("has already passed this sequence: the next one is {next}"),
            );
        }
        if is_planted(PlantedBug::AcceptGaps) {
            return SequenceCheck::Accept;
        }
        self.gap(next)
    }

    /// Refusal of a batch that is not the next one.
    pub fn gap(&self, next: i32) -> SequenceCheck {
        self.refuse(
            ErrorCode::OutOfOrderSequence,
            format!("left a gap: the next sequence is {next}; send the missing batch first"),
        )
    }

    fn refuse(&self, code: ErrorCode, why: String) -> SequenceCheck {
        SequenceCheck::Refuse(WireError::new(
            code,
            format!(
                "producer {} epoch {} sent sequence {}, but {why}",
                self.producer, self.epoch, self.first_sequence
            ),
        ))
    }
}

/// Sequences have 31 bits; after the highest comes 0.
fn sequence_after(first: i32, count: u32) -> i32 {
    let next = (first as u32).wrapping_add(count) & i32::MAX as u32;
    next as i32
}

/// Returns true if `sequence` is nearer behind `next` than before it, on the ring of 31 bits.
pub fn is_behind(sequence: i32, next: i32) -> bool {
    let distance = (next as u32).wrapping_sub(sequence as u32) & i32::MAX as u32;
    distance < 1 << 30
}

#[cfg(test)]
#[path = "producers_tests.rs"]
mod tests;
