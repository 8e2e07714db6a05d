//! State kept of producers, and the order in which it is dropped.

use super::*;

fn claim(epoch: i16, first_sequence: i32, count: u32) -> BatchIdentity {
    BatchIdentity {
        producer: 7,
        epoch,
        first_sequence,
        count,
    }
}

fn accept(
    producers: &mut Producers,
    claim: BatchIdentity,
    base_offset: u64,
    time_ms: i64,
) -> StateWrites {
    assert_eq!(producers.judge(&claim), SequenceCheck::Accept);
    let mut effects = StateWrites::default();
    producers.remember(&claim, base_offset, time_ms, Most::of(false), &mut effects);
    effects
}

fn refusal(producers: &Producers, claim: BatchIdentity) -> ErrorCode {
    match producers.judge(&claim) {
        SequenceCheck::Refuse(error) => error.code,
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
    assert_eq!(
        producers.judge(&claim(0, 57, 3)),
        SequenceCheck::Duplicate(119)
    );
    assert_eq!(
        producers.judge(&claim(0, 12, 3)),
        SequenceCheck::Duplicate(104)
    );
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
        let claim = BatchIdentity {
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
fn a_producers_last_batch_outlives_the_others_by_far() {
    let most = Most {
        whole: 10,
        all: 100,
    };
    let mut producers = Producers::default();
    let mut disk = BTreeMap::new();
    let mut write = |producer: i64, first_sequence: i32| {
        let claim = BatchIdentity {
            producer,
            ..claim(0, first_sequence, 1)
        };
        let mut effects = StateWrites::default();
        assert_eq!(producers.judge(&claim), SequenceCheck::Accept);
        let offset = (producer * 10 + i64::from(first_sequence)) as u64;
        producers.remember(&claim, offset, offset as i64, most, &mut effects);
        for effect in effects.0 {
            match effect.value {
                Some(value) => disk.insert(effect.key, value),
                None => disk.remove(&effect.key),
            };
        }
    };
    for producer in 0..50 {
        write(producer, 0);
        write(producer, 1);
    }
    let batches = |producer: i64| producers.by_id[&producer].batches.len();
    assert_eq!((batches(39), batches(40)), (1, 2));
    let again = |producer| BatchIdentity {
        producer,
        ..claim(0, 1, 1)
    };
    assert_eq!(producers.judge(&again(3)), SequenceCheck::Duplicate(31));
    let earlier = BatchIdentity {
        first_sequence: 0,
        ..again(3)
    };
    assert_eq!(refusal(&producers, earlier), ErrorCode::DuplicateSequence);
    assert_eq!(disk.len(), 40 + 20, "its slots are given back");
    let mut loaded = Producers::default();
    for (key, bytes) in &disk {
        if let Ok(Key::Batch(producer, slot)) = Key::decode(key) {
            loaded.load(producer, slot, super::super::keys::value(bytes).unwrap());
        }
    }
    loaded.loaded();
    assert_eq!(loaded, producers);
}

#[test]
fn thirty_thousand_other_producers_push_out_no_batch_of_one_that_wrote_two() {
    let mut producers = Producers::default();
    let mut accept = |claim: BatchIdentity, offset: u64| {
        let mut effects = StateWrites::default();
        producers.remember(&claim, offset, offset as i64, Most::of(true), &mut effects);
    };
    accept(claim(0, 0, 1), 0);
    accept(claim(0, 1, 1), 1);
    for producer in 100..30_100 {
        let other = BatchIdentity {
            producer,
            ..claim(0, 0, 1)
        };
        accept(other, producer as u64);
    }
    assert_eq!(
        producers.judge(&claim(0, 0, 1)),
        SequenceCheck::Duplicate(0)
    );
    assert_eq!(
        producers.judge(&claim(0, 1, 1)),
        SequenceCheck::Duplicate(1)
    );
}

#[test]
fn a_producer_silent_for_a_week_is_forgotten_with_its_slots() {
    let mut producers = Producers::default();
    accept(&mut producers, claim(0, 0, 1), 0, 0);
    let other = BatchIdentity {
        producer: 8,
        ..claim(0, 0, 1)
    };
    let effects = accept(&mut producers, other, 1, FORGOTTEN_AFTER_MS + 1);
    assert!(!producers.by_id.contains_key(&7));
    let removed = effects.0.iter().filter(|effect| effect.value.is_none());
    assert_eq!(removed.count(), usize::from(BATCHES_REMEMBERED));
}
