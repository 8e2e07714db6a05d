//! Checks of the records of a batch before they are accepted. `BatchView::check` of `ropewalk_proto` has checked
//! the header and the CRC before. Every reader must be able to unpack and parse the records within bounds, and
//! they must meet the requirements of their topic. A batch's place in its producer's sequence must never come
//! in: only the log knows it.

use ropewalk_machines::meta::settings;
use ropewalk_proto::batch::{BatchError, BatchView, Compression, Limits};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::units;

use super::{Partition, compaction};
use crate::unpack::UnpackError;

impl Partition {
    /// Returns the limits of a batch that arrives now, by the time of the cluster.
    pub(super) fn batch_limits(&self) -> Limits {
        let settings = *self.settings.read();
        let clock = &self.host.clock;
        let latest_timestamp_ms = match settings::max_timestamp_ahead_ms(&settings) {
            settings::UNLIMITED => i64::MAX,
            // While most nodes' clocks are unknown, this node's own decides nothing.
            _ if clock.earliest_ms() == i64::MIN => i64::MAX,
            ahead_ms => clock.now_ms().saturating_add(ahead_ms),
        };
        Limits {
            latest_timestamp_ms,
            ..Limits::new(settings.max_batch_bytes)
        }
    }

    /// Checks the records of a batch whose header is valid: all of them if they are compressed, and their
    /// keys if the topic is compacted.
    ///
    /// # Errors
    /// `CorruptBatch`, `TooLarge`, `InvalidTimestamp`, `InvalidRequest`; `Overloaded`, if the node has too
    /// much to unpack.
    pub(super) async fn check_records(
        &self,
        batch: &BatchView,
        limits: &Limits,
    ) -> Result<(), WireError> {
        let compacts = settings::compacts(&self.settings.read());
        let compressed = batch.compression() != Compression::None;
        if !compacts && !compressed {
            return Ok(());
        }
        let most_bytes = self.unpacked_bytes(limits, compacts);
        let unpacker = &self.host.unpackers.producers;
        let unpacked = unpacker.unpack(batch, most_bytes).await;
        let unpacked = unpacked.map_err(|error| match error {
            UnpackError::Batch(error) => self.broken(error),
            UnpackError::Overloaded(_) => self.overloaded(),
        })?;
        let checked = unpacker.look(&unpacked, |payload| {
            if compressed {
                let held = batch.check_records(payload, limits);
                held.map_err(|error| self.broken(error))?;
            }
            match compacts {
                true => {
                    compaction::check(batch.records_of(payload.clone())).map_err(|what| WireError {
                        record: what.record,
                        ..self.error(what.code, what.message)
                    })
                }
                false => Ok(()),
            }
        });
        checked.await.unwrap_or_else(|_| Err(self.overloaded()))
    }

    /// Maximum unpacked bytes of one batch's records.
    fn unpacked_bytes(&self, limits: &Limits, compacts: bool) -> usize {
        let node = &self.host.limits;
        let max_batch_bytes = limits.max_batch_bytes as usize;
        let most_bytes = max_batch_bytes
            .saturating_mul(node.unpack_factor)
            .min(node.unpack_batch_bytes)
            .max(max_batch_bytes);
        match compacts {
            true => most_bytes.min(compaction::UNPACKED_BYTES),
            false => most_bytes,
        }
    }

    fn broken(&self, error: BatchError) -> WireError {
        match error {
            // The error's own text is for readers, who may raise their bound.
            BatchError::Expands { limit, codec } => self.error(
                error.code(),
                format!(
                    "the records of the batch unpack with {codec} to more than {}, the limit of \
                     this topic; send smaller batches, or raise max_batch_bytes of the topic or \
                     unpack_factor of the nodes",
                    units::size(limit as u64)
                ),
            ),
            error => self.error(error.code(), error),
        }
    }

    fn overloaded(&self) -> WireError {
        self.error(
            ErrorCode::Overloaded,
            "its leader has more to unpack than unpack_bytes_per_s and unpack_inflight_bytes allow; \
             send more slowly, or batches that unpack to less",
        )
    }
}
