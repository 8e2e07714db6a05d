//! Producer ids and their epochs. The metadata group allocates each of them once.
//!
//! Most producers have only an id and epoch 0. The metadata keeps the epochs of the producers that renewed
//! theirs most recently. No other epoch is above the highest forgotten one, and the next epoch of such a
//! producer is above that.

use std::collections::BTreeMap;

use ropewalk_proto::mistake::{Mistake, made};
use ropewalk_proto::v1::{
    AllocateProducerIds, MetaProducer, ProducerIds, RenewProducer, RenewedProducer, meta_reply,
};

use super::invalid;
use super::machine::{MetaMachine, Outcome};

/// Maximum number of producer ids in one allocation.
const MAX_PRODUCER_IDS: u64 = 100_000;
/// Maximum number of producers whose epochs are kept. The least recently renewed one is forgotten first.
const EPOCHS_KEPT: usize = 10_000;
/// The highest epoch of a producer: an i16 in the batch header.
pub const LAST_PRODUCER_EPOCH: u32 = i16::MAX as u32;

/// The epochs of producers that have renewed theirs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Epochs {
    by_id: BTreeMap<u64, MetaProducer>,
    /// The same ids in the order of their last renewal.
    by_renewal: BTreeMap<u64, u64>,
    /// Bounds on the forgotten epochs.
    pub forgotten: Forgotten,
}

/// Bounds on the forgotten epochs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Forgotten {
    /// All forgotten ids are below this.
    pub below_id: u64,
    /// No forgotten epoch is higher.
    pub epoch: u32,
}

impl Epochs {
    pub(super) fn get(&self, id: u64) -> Option<&MetaProducer> {
        self.by_id.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &MetaProducer> {
        self.by_id.values()
    }

    pub(super) fn load(&mut self, producer: MetaProducer) {
        self.by_renewal
            .insert(producer.renewal, producer.producer_id);
        self.by_id.insert(producer.producer_id, producer);
    }

    /// The next epoch: above every epoch that the producer had, and above the one that it claims, which an
    /// older node may have given it. `None` if no epoch is left.
    fn next(&self, id: u64, claimed: u32) -> Option<u32> {
        let forgotten = match id < self.forgotten.below_id {
            true => self.forgotten.epoch,
            false => 0,
        };
        let known = match made(Mistake::EpochGivenTwice) {
            false => self.get(id).map_or(forgotten, |known| known.epoch),
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
        self.load(MetaProducer {
            producer_id: id,
            epoch,
            renewal,
        });
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

impl MetaMachine {
    /// The lowest producer id that is not allocated.
    pub fn next_producer_id(&self) -> u64 {
        self.state.next.producer
    }

    pub(super) fn allocate_producer_ids(&mut self, command: &AllocateProducerIds) -> Outcome {
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
    pub(super) fn renew_producer(&mut self, command: &RenewProducer) -> Outcome {
        let id = command.producer_id;
        let next_id = self.state.next.producer;
        let was_given_out = (1..next_id).contains(&id);
        let epoch = self.state.epochs.next(id, command.producer_epoch);
        let renewed = match epoch.filter(|_| was_given_out) {
            None => RenewedProducer {
                producer_id: self.draw_producers(1),
                producer_epoch: 0,
            },
            Some(epoch) => {
                let forgotten = self.state.epochs.keep(id, epoch, next_id);
                self.touched
                    .producers
                    .extend([Some(id), forgotten].into_iter().flatten());
                self.touched.counters |= forgotten.is_some();
                RenewedProducer {
                    producer_id: id,
                    producer_epoch: epoch,
                }
            }
        };
        Ok(Some(meta_reply::Kind::RenewedProducer(renewed)))
    }

    fn draw_producers(&mut self, count: u64) -> u64 {
        let first = self.state.next.producer;
        self.state.next.producer += count;
        self.touched.counters = true;
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
