//! What idempotent producers wrote last: enough to answer a batch sent twice with its first
//! offset, and to refuse one that comes after a gap. The rules are Kafka's.
//!
//! The table is part of the replicated state, so its bounds are constants and its only clock is the
//! partition's own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::mistake::{Mistake, made};

use super::state::{Effects, Key, Remembered};

/// Batches remembered of one producer: as many as it may have in flight and send again.
const BATCHES_REMEMBERED: u8 = 16;
/// Producers one partition remembers; the one silent for longest makes room.
const PRODUCERS_REMEMBERED: usize = 10_000;
/// A producer silent for this long is forgotten.
const FORGOTTEN_AFTER_MS: i64 = 7 * 24 * 3_600_000;
/// Producers forgotten at most while one entry is applied.
const FORGOTTEN_AT_ONCE: usize = 8;

/// Who a batch says it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub producer: i64,
    pub epoch: i16,
    pub first_sequence: i32,
    pub count: u32,
}

/// What may be done with a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next one.
    Accept,
    /// It is in the log already, at this offset.
    Duplicate(u64),
    /// It must not be in the log.
    Refuse(WireError),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Producers {
    by_id: BTreeMap<i64, Producer>,
    by_time: BTreeSet<(i64, i64)>,
}

/// One producer: the batches of its current epoch, the oldest first. On the disk they lie in a
/// ring of slots, so that an append writes one small value.
#[derive(Debug, Clone, Default, PartialEq)]
struct Producer {
    newest_slot: u8,
    batches: VecDeque<Remembered>,
}

impl Producers {
    /// Judges a batch by what is committed; changes nothing.
    pub(super) fn judge(&self, claim: &Claim) -> Verdict {
        match self
            .by_id
            .get(&claim.producer)
            .and_then(|known| known.batches.back().zip(Some(known)))
        {
            None => claim.begins(),
            Some((last, _)) if claim.epoch as i32 > last.epoch => claim.begins(),
            Some((last, _)) if (claim.epoch as i32) < last.epoch && made(Mistake::NoFencing) => {
                Verdict::Accept
            }
            Some((last, _)) if (claim.epoch as i32) < last.epoch => claim.fenced(last.epoch),
            Some((last, known)) => claim.continues(last, known),
        }
    }

    /// Remembers an accepted batch, and forgets producers that have been silent for too long.
    pub(super) fn remember(
        &mut self,
        claim: &Claim,
        base_offset: u64,
        time_ms: i64,
        effects: &mut Effects,
    ) {
        let batch = Remembered {
            epoch: claim.epoch.into(),
            first_sequence: claim.first_sequence,
            count: claim.count,
            base_offset,
            time_ms,
        };
        let known = self.by_id.entry(claim.producer).or_default();
        if let Some(last) = known.batches.back() {
            self.by_time.remove(&(last.time_ms, claim.producer));
        }
        self.by_time.insert((time_ms, claim.producer));
        known.push(batch);
        effects.put(Key::Batch(claim.producer, known.newest_slot), &batch);
        self.forget_silent(time_ms, claim.producer, effects);
    }

    /// When the producer that wrote last did so.
    pub(super) fn newest_ms(&self) -> Option<i64> {
        self.by_time.last().map(|(time_ms, _)| *time_ms)
    }

    fn forget_silent(&mut self, now_ms: i64, writing: i64, effects: &mut Effects) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            let oldest = self
                .by_time
                .iter()
                .find(|(_, producer)| *producer != writing);
            let Some(&(time_ms, producer)) = oldest else {
                return;
            };
            let expired = now_ms.saturating_sub(time_ms) > FORGOTTEN_AFTER_MS;
            if !expired && self.by_id.len() <= PRODUCERS_REMEMBERED {
                return;
            }
            self.by_time.remove(&(time_ms, producer));
            self.by_id.remove(&producer);
            for slot in 0..BATCHES_REMEMBERED {
                effects.remove(Key::Batch(producer, slot));
            }
        }
    }

    /// Takes one value from the disk; [`Producers::loaded`] comes after the last.
    pub(super) fn load(&mut self, producer: i64, slot: u8, batch: Remembered) {
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

    /// Puts what was loaded in order. Slots that still hold an older epoch count for nothing.
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
        }
    }

    /// Everything, slot by slot.
    pub(super) fn store(&self, effects: &mut Effects) {
        for (&producer, known) in &self.by_id {
            for (age, batch) in (0u8..).zip(known.batches.iter().rev()) {
                let slot = (known.newest_slot + BATCHES_REMEMBERED - age) % BATCHES_REMEMBERED;
                effects.put(Key::Batch(producer, slot), batch);
            }
        }
    }
}

impl Producer {
    fn push(&mut self, batch: Remembered) {
        if self
            .batches
            .back()
            .is_some_and(|last| last.epoch != batch.epoch)
        {
            self.batches.clear();
        }
        if self.batches.len() == usize::from(BATCHES_REMEMBERED) {
            self.batches.pop_front();
        }
        self.newest_slot = (self.newest_slot + 1) % BATCHES_REMEMBERED;
        self.batches.push_back(batch);
    }
}

impl Claim {
    /// A new producer, or a new epoch of one, begins at sequence 0.
    fn begins(&self) -> Verdict {
        if self.first_sequence == 0 {
            return Verdict::Accept;
        }
        self.refuse(
            ErrorCode::UnknownProducer,
            "is not known here, so it must begin at 0; take a new epoch and begin again".into(),
        )
    }

    fn fenced(&self, current: i32) -> Verdict {
        self.refuse(
            ErrorCode::ProducerFenced,
            format!("is fenced by epoch {current}; stop, a newer instance writes in its place"),
        )
    }

    fn continues(&self, last: &Remembered, known: &Producer) -> Verdict {
        let next = sequence_after(last.first_sequence, last.count);
        if self.first_sequence == next {
            return Verdict::Accept;
        }
        let same = |batch: &&Remembered| {
            batch.first_sequence == self.first_sequence && batch.count == self.count
        };
        if let Some(batch) = known.batches.iter().find(same) {
            return match made(Mistake::NoDeduplication) {
                false => Verdict::Duplicate(batch.base_offset),
                true => Verdict::Accept,
            };
        }
        if is_behind(self.first_sequence, next) {
            return self.refuse(
                ErrorCode::DuplicateSequence,
                format!("was past this sequence already: {next} comes next"),
            );
        }
        if made(Mistake::AcceptGaps) {
            return Verdict::Accept;
        }
        self.refuse(
            ErrorCode::OutOfOrderSequence,
            format!("left a gap: {next} comes next; send the missing batch first"),
        )
    }

    fn refuse(&self, code: ErrorCode, why: String) -> Verdict {
        Verdict::Refuse(WireError::new(
            code,
            format!(
                "producer {} epoch {} sent sequence {}, but {why}",
                self.producer, self.epoch, self.first_sequence
            ),
        ))
    }
}

/// Sequences are 31 bits; after the highest comes 0.
fn sequence_after(first: i32, count: u32) -> i32 {
    let next = (first as u32).wrapping_add(count) & i32::MAX as u32;
    next as i32
}

/// Whether `sequence` is nearer behind `next` than before it, on the ring of 31 bits.
fn is_behind(sequence: i32, next: i32) -> bool {
    let distance = (next as u32).wrapping_sub(sequence as u32) & i32::MAX as u32;
    distance < 1 << 30
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(epoch: i16, first_sequence: i32, count: u32) -> Claim {
        Claim {
            producer: 7,
            epoch,
            first_sequence,
            count,
        }
    }

    fn accept(producers: &mut Producers, claim: Claim, base_offset: u64, time_ms: i64) -> Effects {
        assert_eq!(producers.judge(&claim), Verdict::Accept);
        let mut effects = Effects::default();
        producers.remember(&claim, base_offset, time_ms, &mut effects);
        effects
    }

    fn refusal(producers: &Producers, claim: Claim) -> ErrorCode {
        match producers.judge(&claim) {
            Verdict::Refuse(error) => error.code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_batch_sent_twice_is_answered_with_its_first_offset() {
        let mut producers = Producers::default();
        for n in 0..20u8 {
            accept(
                &mut producers,
                claim(0, i32::from(n) * 3, 3),
                100 + u64::from(n),
                0,
            );
        }
        assert_eq!(producers.judge(&claim(0, 57, 3)), Verdict::Duplicate(119));
        assert_eq!(producers.judge(&claim(0, 12, 3)), Verdict::Duplicate(104));
        assert_eq!(
            refusal(&producers, claim(0, 9, 3)),
            ErrorCode::DuplicateSequence
        );
        assert_eq!(
            refusal(&producers, claim(0, 57, 2)),
            ErrorCode::DuplicateSequence
        );
    }

    #[test]
    fn a_gap_an_old_epoch_and_a_stranger_are_refused() {
        let mut producers = Producers::default();
        assert_eq!(
            refusal(&producers, claim(0, 5, 1)),
            ErrorCode::UnknownProducer
        );
        accept(&mut producers, claim(2, 0, 10), 0, 0);
        assert_eq!(
            refusal(&producers, claim(2, 11, 1)),
            ErrorCode::OutOfOrderSequence
        );
        assert_eq!(
            refusal(&producers, claim(1, 10, 1)),
            ErrorCode::ProducerFenced
        );
        assert_eq!(
            refusal(&producers, claim(3, 10, 1)),
            ErrorCode::UnknownProducer
        );
        accept(&mut producers, claim(3, 0, 1), 10, 0);
        assert_eq!(
            refusal(&producers, claim(2, 10, 1)),
            ErrorCode::ProducerFenced
        );
    }

    #[test]
    fn sequences_wrap_at_the_highest() {
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 3), 1);
        assert_eq!(sequence_after(5, 3), 8);
        assert!(is_behind(i32::MAX, 0));
        assert!(!is_behind(0, i32::MAX));
    }

    #[test]
    fn the_producer_silent_for_longest_makes_room() {
        let mut producers = Producers::default();
        for id in 0..=PRODUCERS_REMEMBERED as i64 {
            let claim = Claim {
                producer: id,
                ..claim(0, 0, 1)
            };
            accept(&mut producers, claim, id as u64, 1_000 - (id == 3) as i64);
        }
        assert_eq!(producers.by_id.len(), PRODUCERS_REMEMBERED);
        assert!(!producers.by_id.contains_key(&3));
        assert_eq!(producers.by_time.len(), PRODUCERS_REMEMBERED);
    }

    #[test]
    fn a_producer_silent_for_a_week_is_forgotten_with_its_slots() {
        let mut producers = Producers::default();
        accept(&mut producers, claim(0, 0, 1), 0, 0);
        let other = Claim {
            producer: 8,
            ..claim(0, 0, 1)
        };
        let effects = accept(&mut producers, other, 1, FORGOTTEN_AFTER_MS + 1);
        assert!(!producers.by_id.contains_key(&7));
        let removed = effects.0.iter().filter(|effect| effect.value.is_none());
        assert_eq!(removed.count(), usize::from(BATCHES_REMEMBERED));
    }
}
