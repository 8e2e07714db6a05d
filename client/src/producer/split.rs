//! Splitting of a batch that its partition refuses for its size, or for one of its records. The other records
//! are sent again, in order and before all later ones.

use std::sync::Arc;

use ropewalk_proto::batch::{BatchView, Compression};
use tokio::time::Instant;

use super::accumulator::Accumulator;
use super::batch::{Batch, NewRecord, OpenBatch};
use super::identity::Identity;
use super::in_flight::InFlightBatch;
use super::memory::MemoryPermit;
use super::partition_sender::PartitionSender;
use super::pending::BatchSlot;
use crate::error::{Error, ErrorKind};

/// Maximum unpacked size of a batch that this client built.
pub(super) const UNPACKED_BYTES: usize = 64 << 20;
/// Number of tries of a batch that its partition rejects as too large, although it is within the topic's
/// limit. The leader may not have the new setting yet.
const TRIES: u32 = 10;

/// Parameters for splitting a batch into others.
struct Cut<'a> {
    gathered: &'a Arc<Accumulator>,
    partition: u32,
    compression: Compression,
    identity: Identity,
    batch_bytes: usize,
    max_batch_bytes: usize,
    /// Index of the record that fails, with its error.
    refused: Option<(u32, &'a Error)>,
}

impl PartitionSender {
    /// Handles the refusal of the first batch as too large; the topic's limit has been refreshed.
    pub(super) fn fit(&mut self, error: &Error) {
        let most = self.shared.rules.max_batch_bytes();
        let Some(first) = self.flights.first_mut() else {
            return;
        };
        first.tries_too_large += 1;
        let (fits, tries) = (first.bytes.len() <= most, first.tries_too_large);
        if first.maybe_written() || (fits && tries > TRIES) {
            return self.fail_first(error);
        }
        if fits {
            self.last_error = Some(error.clone());
            self.resume_at = Instant::now() + self.backoff.pause();
            return;
        }
        self.cut(None, |flight| flight.bytes.len() > most);
    }

    /// Fails the one record for which the first batch was refused, and sends the others again.
    pub(super) fn fail_record(&mut self, record: u32, error: &Error) {
        let first = self.flights.first();
        match first.filter(|first| !first.maybe_written() && record < first.count) {
            None => self.fail_first(error),
            Some(first) => {
                let base_sequence = first.base_sequence;
                self.cut(Some((record, error)), |flight| {
                    flight.base_sequence == base_sequence
                });
            }
        }
    }

    /// Splits the selected batches, and renumbers all. The first was not written, so none behind it was.
    fn cut(&mut self, refused: Option<(u32, &Error)>, which: impl Fn(&InFlightBatch) -> bool) {
        let Some(first) = self.flights.first() else {
            return;
        };
        let base_sequence = first.base_sequence;
        let max_batch_bytes = self.shared.rules.max_batch_bytes();
        let gathered = self.gathered.clone();
        let cut = Cut {
            gathered: &gathered,
            partition: self.of.partition,
            compression: self.shared.shape.compression,
            identity: self.identity,
            batch_bytes: self.shared.shape.batch_bytes.min(max_batch_bytes),
            max_batch_bytes,
            refused,
        };
        self.flights
            .replace(|flight| match which(&flight) && !flight.maybe_written() {
                true => cut.of(flight),
                false => vec![flight],
            });
        self.number_again(base_sequence);
    }
}

impl Cut<'_> {
    fn of(&self, flight: InFlightBatch) -> Vec<InFlightBatch> {
        let InFlightBatch {
            mut batch, bytes, ..
        } = flight;
        let view = BatchView::trusted(bytes);
        let records = match view.and_then(|view| view.records(UNPACKED_BYTES)) {
            Ok(records) => records,
            // This client packed the batch, so it unpacks.
            Err(error) => {
                batch.fail(&Error::new(ErrorKind::Corrupt, error.to_string()));
                return Vec::new();
            }
        };
        let mut memory = batch.release_memory();
        let (mut made, mut places) = (Vec::new(), Vec::with_capacity(records.len()));
        for (number, record) in (0..).zip(records) {
            let record = NewRecord::again(record, batch.since);
            let mut part = memory.split(record.record.memory_bytes());
            places.push(match self.refused {
                Some((refused, why)) if refused == number => {
                    BatchSlot::failed(self.partition, why.clone())
                }
                _ => self.put(&mut made, &batch, &record, &mut part),
            });
        }
        // Flushes must see the new batches before the old one ends.
        self.gathered.adopt(&made);
        batch.completion.move_to(places);
        let flight = |open| InFlightBatch::new(open, self.identity, 0);
        made.into_iter().map(flight).collect()
    }

    /// Adds a record to the last new batch, or to another new one.
    fn put(
        &self,
        made: &mut Vec<OpenBatch>,
        batch: &Batch,
        record: &NewRecord,
        memory: &mut MemoryPermit,
    ) -> BatchSlot {
        if let Some(open) = made.last_mut()
            && let Ok(Some(place)) = open.push(record, memory)
        {
            return place;
        }
        let (partition, compression) = (self.partition, self.compression);
        let mut why = String::new();
        // A record that is larger than the target size gets a batch of its own.
        for max_bytes in [self.batch_bytes, self.max_batch_bytes] {
            let mut open =
                OpenBatch::new(partition, batch.choice, compression, max_bytes, batch.since);
            match open.push(record, memory) {
                Ok(Some(place)) => {
                    made.push(open);
                    return place;
                }
                Ok(None) => {}
                Err(error) => why = error.to_string(),
            }
        }
        BatchSlot::failed(partition, Error::new(ErrorKind::TooLarge, why))
    }
}
