//! Producer ids and their epochs. The metadata group allocates each of them once.
//!
//! Most producers have only an id and epoch 0. The metadata keeps the epochs of the producers that renewed
//! theirs most recently. No other epoch is above the highest forgotten one, and the next epoch of such a
//! producer is above that.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};
use ropewalk_proto::command::{CommandError, PRODUCERS_SINCE_VERSION};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use ropewalk_proto::v1::{
    AllocateProducerIds, MetaProducer, MetaState, ProducerIds, RenewProducer, RenewedProducer,
    meta_reply,
};

use super::codec::{effect, key, read};
use super::rows::Rows;
use super::{Apply, Entity, Outcome};
use crate::machine::{MachineError, StateWrite};
use crate::meta::invalid;
use crate::meta::machine::{MetaMachine, State};

/// A producer that renewed its epoch, by id.
const PRODUCER: u8 = b'p';
/// Maximum number of producer ids in one allocation.
const MAX_PRODUCER_IDS: u64 = 100_000;
/// Maximum number of producers whose epochs are kept. The least recently renewed one is forgotten first.
const EPOCHS_KEPT: usize = 10_000;
/// The highest epoch of a producer: an i16 in the batch header.
pub const LAST_PRODUCER_EPOCH: u32 = i16::MAX as u32;

/// The producers: their ids, and the epochs of those that have renewed theirs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Producers {
    /// Every lower id is allocated, and no other one.
    pub next_id: u64,
    epochs: Epochs,
}

/// The epochs of producers that have renewed theirs.
#[derive(Debug, Clone, Default, PartialEq)]
struct Epochs {
    by_id: Rows<u64, MetaProducer>,
    /// The same ids in the order of their last renewal.
    by_renewal: BTreeMap<u64, u64>,
    /// Bounds on the forgotten epochs.
    forgotten: Forgotten,
}

/// Bounds on the forgotten epochs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Forgotten {
    /// All forgotten ids are below this.
    below_id: u64,
    /// No forgotten epoch is higher.
    epoch: u32,
}

impl Epochs {
    /// The next epoch: above every epoch that the producer had, and above the one that it claims, which an
    /// older node may have given it. `None` if no epoch is left.
    fn next(&self, id: u64, claimed: u32) -> Option<u32> {
        let forgotten = match id < self.forgotten.below_id {
            true => self.forgotten.epoch,
            false => 0,
        };
        let known = match is_planted(PlantedBug::EpochGivenTwice) {
            false => self.by_id.get(&id).map_or(forgotten, |known| known.epoch),
            true => 0,
        };
        let next = known.max(claimed).checked_add(1)?;
        (next <= LAST_PRODUCER_EPOCH).then_some(next)
    }

    /// Keeps an epoch. Returns the producer whose epoch is forgotten to make room. Id `next_id` is not
    /// allocated yet.
    fn keep(&mut self, id: u64, epoch: u32, next_id: u64) -> Option<u64> {
        if let Some(before) = self.by_id.remove(&id) {
            self.by_renewal.remove(&before.renewal);
        }
        let last = self.by_renewal.last_key_value();
        let renewal = last.map_or(0, |(last, _)| last + 1);
        self.by_renewal.insert(renewal, id);
        let producer = MetaProducer {
            producer_id: id,
            epoch,
            renewal,
        };
        self.by_id.put(id, producer);
        if self.by_id.len() <= EPOCHS_KEPT {
            return None;
        }
        let (_, oldest) = self.by_renewal.pop_first()?;
        let oldest = self.by_id.remove(&oldest)?;
        self.forgotten = Forgotten {
            below_id: next_id,
            epoch: self.forgotten.epoch.max(oldest.epoch),
        };
        Some(oldest.producer_id)
    }
}

impl Entity for Producers {
    fn prefixes(&self) -> &'static [u8] {
        &[PRODUCER]
    }

    fn add_effects(&self, _state: &State, effects: &mut Vec<StateWrite>) {
        let changes = self.epochs.by_id.changes();
        let key = |id: u64| key(PRODUCER, |key| key.put_u64(id));
        effects.extend(changes.map(|(id, producer)| effect(key(*id), producer)));
    }

    fn touch_all(&mut self) {
        self.epochs.by_id.touch_all();
    }

    fn settle(&mut self) {
        self.epochs.by_id.settle();
    }

    fn add_counters(&self, whole: &mut MetaState) {
        whole.next_producer_id = self.next_id;
        whole.forgotten_producers_below = self.epochs.forgotten.below_id;
        whole.forgotten_producer_epoch = self.epochs.forgotten.epoch;
    }

    fn add_values(&self, whole: &mut MetaState) {
        whole.producers = self.epochs.by_id.values().copied().collect();
    }

    fn load(&self, _key: &[u8], value: Bytes, whole: &mut MetaState) -> Result<(), MachineError> {
        whole.producers.push(read(value)?);
        Ok(())
    }

    fn restore(&mut self, whole: &mut MetaState) -> Result<(), MachineError> {
        let producers = std::mem::take(&mut whole.producers);
        let by_renewal = producers.iter().map(|one| (one.renewal, one.producer_id));
        self.next_id = whole.next_producer_id;
        self.epochs = Epochs {
            by_renewal: by_renewal.collect(),
            by_id: producers
                .into_iter()
                .map(|one| (one.producer_id, one))
                .collect(),
            forgotten: Forgotten {
                below_id: whole.forgotten_producers_below,
                epoch: whole.forgotten_producer_epoch,
            },
        };
        Ok(())
    }
}

impl Apply for AllocateProducerIds {
    fn since_version(&self) -> u32 {
        1
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn apply(&self, state: &mut State) -> Result<Outcome, CommandError> {
        Ok(state.allocate_producer_ids(self))
    }
}

impl Apply for RenewProducer {
    fn since_version(&self) -> u32 {
        PRODUCERS_SINCE_VERSION
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn apply(&self, state: &mut State) -> Result<Outcome, CommandError> {
        Ok(state.renew_producer(self))
    }
}

impl MetaMachine {
    /// The lowest producer id that is not allocated.
    pub fn next_producer_id(&self) -> u64 {
        self.state.producers.next_id
    }
}

impl State {
    fn allocate_producer_ids(&mut self, command: &AllocateProducerIds) -> Outcome {
        if !(1..=MAX_PRODUCER_IDS).contains(&command.count) {
            return Err(invalid(format!(
                "producer id request for {} ids is out of range; ask for 1 to {MAX_PRODUCER_IDS}",
                command.count
            )));
        }
        let first = self.draw_producers(command.count);
        Ok(Some(meta_reply::Kind::ProducerIds(ProducerIds {
            first,
            count: command.count,
        })))
    }

    /// Gives a producer an epoch that no producer has had with its id. A producer whose id was never
    /// allocated, or that has no epoch left, gets a new id.
    fn renew_producer(&mut self, command: &RenewProducer) -> Outcome {
        let id = command.producer_id;
        let next_id = self.producers.next_id;
        let was_given_out = (1..next_id).contains(&id);
        let epochs = &mut self.producers.epochs;
        let epoch = epochs.next(id, command.producer_epoch);
        let renewed = match epoch.filter(|_| was_given_out) {
            None => RenewedProducer {
                producer_id: self.draw_producers(1),
                producer_epoch: 0,
            },
            Some(epoch) => {
                if epochs.keep(id, epoch, next_id).is_some() {
                    self.cluster.touch();
                }
                RenewedProducer {
                    producer_id: id,
                    producer_epoch: epoch,
                }
            }
        };
        Ok(Some(meta_reply::Kind::RenewedProducer(renewed)))
    }

    fn draw_producers(&mut self, count: u64) -> u64 {
        let first = self.producers.next_id;
        self.producers.next_id += count;
        self.cluster.touch();
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_epoch_is_given_twice_also_when_it_was_forgotten() {
        let mut epochs = Epochs::default();
        let mut renew = |id, claimed| {
            let epoch = epochs.next(id, claimed)?;
            let forgotten = epochs.keep(id, epoch, 1_000_000);
            Some((epoch, forgotten))
        };
        assert_eq!(renew(1, 0), Some((1, None)));
        assert_eq!(renew(1, 0), Some((2, None)));
        assert_eq!(renew(1, 7), Some((8, None)), "as an older node gave it");
        for id in 2..=EPOCHS_KEPT as u64 {
            assert_eq!(renew(id, 0), Some((1, None)));
        }
        assert_eq!(renew(500_000, 0), Some((1, Some(1))));
        // The bound on the forgotten epochs also covers producers that never had one.
        assert_eq!(renew(1, 0), Some((9, Some(2))));
        assert_eq!(renew(600_000, 0), Some((9, Some(3))));
        assert_eq!(renew(1_000_001, 0), Some((1, Some(4))));
    }

    #[test]
    fn a_producer_without_epochs_left_gets_none() {
        let epochs = Epochs::default();
        assert_eq!(
            epochs.next(1, LAST_PRODUCER_EPOCH - 1),
            Some(LAST_PRODUCER_EPOCH)
        );
        assert_eq!(epochs.next(1, LAST_PRODUCER_EPOCH), None);
        assert_eq!(epochs.next(1, u32::MAX), None);
    }
}
