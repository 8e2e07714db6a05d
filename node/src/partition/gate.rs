//! The leader's check before the log: it refuses a batch that the log would refuse, so that a broken producer
//! costs no disk.
//!
//! The gate decides by the applied state, and by the batches that this leader has proposed since. For some
//! batches neither decides, for example a copy of a batch in flight: then nothing is proposed, and the answer
//! waits. The log checks every batch again. Nothing depends on this gate but the length of the log.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use ropewalk_machines::log::PartitionMachine;
use ropewalk_machines::log::{BatchIdentity, SequenceCheck, is_behind};
use ropewalk_proto::error::{ErrorCode, WireError};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::produce::COMMIT_WITHIN;
use super::{Appended, Partition};

/// Proposed and unanswered batches of this leader, by producer. The node's room for produce requests bounds
/// them.
#[derive(Debug, Default)]
pub(super) struct Gate {
    under_way: Mutex<BTreeMap<i64, Ahead>>,
}

/// Batches in flight of one producer.
#[derive(Debug)]
struct Ahead {
    epoch: i16,
    /// Sequence that follows once all of them are written.
    next_sequence: i32,
    batches: usize,
    /// True if one of them was not written. The log may then refuse the others, too.
    broken: bool,
    /// Notified when one of them is answered.
    answered: Arc<Notify>,
}

/// The gate's verdict on a batch.
#[derive(Debug)]
pub(super) enum Admission {
    /// The batch follows the applied batches, or those in flight.
    Next,
    /// The batch is in the log already, at this offset.
    Known(u64),
    /// The decision must wait for answers to batches in flight.
    Later(Arc<Notify>),
    /// The log refuses the batch, unless it has entries that are not applied here: another replica may lead
    /// by now.
    Refused(WireError),
}

/// A proposed batch, until it is answered.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Arc<Gate>,
    producer: i64,
    /// True if the batch is in the log, with its records.
    pub written: bool,
}

impl Gate {
    /// Judges a batch.
    ///
    /// # Errors
    /// The log's refusal, if it holds whatever entries are not applied here yet.
    pub(super) fn judge(
        &self,
        machine: &PartitionMachine,
        claim: Option<&BatchIdentity>,
        ring_version: u32,
    ) -> Result<Admission, WireError> {
        let verdict = claim.map_or(SequenceCheck::Accept, |claim| machine.judge(claim));
        match &verdict {
            SequenceCheck::Duplicate(base_offset) => return Ok(Admission::Known(*base_offset)),
            SequenceCheck::Refuse(error) if is_final(error.code) => return Err(error.clone()),
            SequenceCheck::Accept | SequenceCheck::Refuse(_) => {}
        }
        // A copy of a batch in flight also comes after the fence, if its entry is not applied yet.
        if let Some(error) = machine.refuses_ring(ring_version) {
            return Err(error);
        }
        let under_way = self.under_way.lock();
        let ahead = claim.and_then(|claim| Some((under_way.get(&claim.producer)?, claim)));
        let verdict = match ahead {
            None => verdict,
            Some((ahead, _)) if ahead.broken => return Ok(ahead.later()),
            Some((ahead, claim)) => match claim.epoch.cmp(&ahead.epoch) {
                Ordering::Greater => verdict,
                Ordering::Less => return Ok(ahead.later()),
                Ordering::Equal if claim.first_sequence == ahead.next_sequence => {
                    SequenceCheck::Accept
                }
                Ordering::Equal if is_behind(claim.first_sequence, ahead.next_sequence) => {
                    return Ok(ahead.later());
                }
                Ordering::Equal if verdict == SequenceCheck::Accept => verdict,
                Ordering::Equal => claim.gap(ahead.next_sequence),
            },
        };
        match verdict {
            SequenceCheck::Accept => Ok(Admission::Next),
            SequenceCheck::Duplicate(base_offset) => Ok(Admission::Known(base_offset)),
            SequenceCheck::Refuse(error) => Ok(Admission::Refused(error)),
        }
    }

    /// Counts a batch as in flight from here on; batches must be proposed in the order of these calls.
    pub(super) fn pass(self: &Arc<Self>, claim: &BatchIdentity) -> Pass {
        let mut under_way = self.under_way.lock();
        let ahead = under_way.entry(claim.producer).or_insert_with(|| Ahead {
            epoch: claim.epoch,
            next_sequence: 0,
            batches: 0,
            broken: false,
            answered: Arc::default(),
        });
        ahead.epoch = claim.epoch;
        ahead.next_sequence = claim.next_sequence();
        ahead.batches += 1;
        Pass {
            gate: Arc::clone(self),
            producer: claim.producer,
            written: false,
        }
    }
}

impl Ahead {
    fn later(&self) -> Admission {
        Admission::Later(Arc::clone(&self.answered))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut under_way = self.gate.under_way.lock();
        let Some(ahead) = under_way.get_mut(&self.producer) else {
            return;
        };
        ahead.batches -= 1;
        ahead.broken |= !self.written;
        ahead.answered.notify_waiters();
        if ahead.batches == 0 {
            under_way.remove(&self.producer);
        }
    }
}

/// Returns true for a refusal that holds whatever is applied next: neither a producer's epoch nor its
/// sequence goes back.
fn is_final(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::ProducerFenced | ErrorCode::DuplicateSequence
    )
}

impl Partition {
    /// Judges a batch before it is proposed. A new leader first applies the entries of its predecessors, if
    /// the verdict depends on them.
    pub(super) async fn admit(
        &self,
        claim: Option<&BatchIdentity>,
        ring_version: u32,
        epoch: u64,
    ) -> Result<Admission, WireError> {
        match self.judge(claim, ring_version)? {
            Admission::Refused(_) if self.applied_epoch() != Some(epoch) => {
                self.catch_up().await?;
                self.judge(claim, ring_version)
            }
            admission => Ok(admission),
        }
    }

    /// Judges a batch by the applied state and the batches in flight.
    fn judge(
        &self,
        claim: Option<&BatchIdentity>,
        ring_version: u32,
    ) -> Result<Admission, WireError> {
        self.leading_epoch()?;
        let machine = self.replica.view.machine();
        let judged = self.gate.judge(&machine, claim, ring_version);
        judged.map_err(|error| self.error(error.code, error.message))
    }

    /// Answers a batch that is not proposed. Most often it is a copy of a batch in flight, and waits for
    /// that. A refusal waits until it is certain that no other replica leads.
    pub(super) async fn decided(
        self: Arc<Self>,
        claim: Option<BatchIdentity>,
        ring_version: u32,
    ) -> Result<Appended, WireError> {
        let arrived = Instant::now();
        let deadline = arrived + COMMIT_WITHIN;
        let mut waits_for: Option<Arc<Notify>> = None;
        let mut confirmed = false;
        loop {
            // Enabled before the verdict, so that no notification is missed.
            let heard = waits_for.clone().unwrap_or_default();
            let mut heard = std::pin::pin!(heard.notified());
            heard.as_mut().enable();
            match self.judge(claim.as_ref(), ring_version)? {
                Admission::Known(base_offset) => {
                    return Ok(self.known(base_offset, self.leading_epoch()?));
                }
                Admission::Next => return Err(self.not_written()),
                Admission::Refused(error) if confirmed => {
                    return Err(self.error(error.code, error.message));
                }
                Admission::Refused(_) => {
                    let confirm = tokio::time::timeout_at(deadline, self.confirm(arrived)).await;
                    confirm.map_err(|_| self.late())??;
                    confirmed = true;
                }
                Admission::Later(next)
                    if waits_for.as_ref().is_some_and(|it| Arc::ptr_eq(it, &next)) =>
                {
                    let waited = tokio::time::timeout_at(deadline, heard).await;
                    waited.map_err(|_| self.late())?;
                }
                Admission::Later(next) => waits_for = Some(next),
            }
        }
    }

    /// Returns once it is certain that no other replica led when a batch arrived, and that all acknowledged
    /// entries from before are applied. One round to the followers confirms this for all batches that arrived
    /// before it.
    async fn confirm(&self, arrived: Instant) -> Result<(), WireError> {
        let mut confirmed = self.confirmed.lock().await;
        if confirmed.is_some_and(|asked| asked >= arrived) {
            return Ok(());
        }
        let asked = Instant::now();
        self.catch_up().await?;
        *confirmed = Some(asked);
        Ok(())
    }

    fn not_written(&self) -> WireError {
        self.error(
            ErrorCode::Overloaded,
            "an earlier batch in flight was not written as expected; send this batch again with \
             the same sequence",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(epoch: i16, first_sequence: i32) -> BatchIdentity {
        BatchIdentity {
            producer: 7,
            epoch,
            first_sequence,
            count: 1,
        }
    }

    /// Returns the verdict of a gate before an empty log.
    fn judge(gate: &Gate, claim: BatchIdentity) -> Result<Admission, ErrorCode> {
        let machine = PartitionMachine::default();
        match gate.judge(&machine, Some(&claim), 0) {
            Ok(Admission::Refused(error)) | Err(error) => Err(error.code),
            Ok(admission) => Ok(admission),
        }
    }

    #[test]
    fn what_follows_a_batch_under_way_passes_and_what_leaves_a_gap_does_not() {
        let gate = Arc::new(Gate::default());
        assert!(matches!(judge(&gate, claim(0, 0)), Ok(Admission::Next)));
        assert_eq!(
            judge(&gate, claim(0, 1)).err(),
            Some(ErrorCode::UnknownProducer)
        );
        let _first = gate.pass(&claim(0, 0));
        assert!(matches!(judge(&gate, claim(0, 1)), Ok(Admission::Next)));
        let _second = gate.pass(&claim(0, 1));
        assert!(matches!(judge(&gate, claim(0, 2)), Ok(Admission::Next)));
        let gap = judge(&gate, claim(0, 3)).err();
        assert_eq!(gap, Some(ErrorCode::OutOfOrderSequence));
        assert!(matches!(judge(&gate, claim(1, 0)), Ok(Admission::Next)));
        let gap = judge(&gate, claim(1, 1)).err();
        assert_eq!(gap, Some(ErrorCode::UnknownProducer));
    }

    #[test]
    fn a_copy_of_what_is_under_way_waits_for_it() {
        let gate = Arc::new(Gate::default());
        let first = gate.pass(&claim(1, 0));
        let later = |claim| matches!(judge(&gate, claim), Ok(Admission::Later(_)));
        assert!(later(claim(1, 0)));
        assert!(later(claim(0, 0)), "it may be fenced");
        drop(first);
        assert!(!later(claim(1, 0)));
        assert!(gate.under_way.lock().is_empty());
    }

    #[test]
    fn nothing_follows_a_batch_that_was_not_written_before_all_are_answered() {
        let gate = Arc::new(Gate::default());
        let first = gate.pass(&claim(0, 0));
        let second = gate.pass(&claim(0, 1));
        drop(first);
        assert!(matches!(judge(&gate, claim(0, 2)), Ok(Admission::Later(_))));
        drop(second);
        assert_eq!(
            judge(&gate, claim(0, 2)).err(),
            Some(ErrorCode::UnknownProducer)
        );
    }
}
