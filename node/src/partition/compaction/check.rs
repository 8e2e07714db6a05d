//! What a batch must be to be taken into a topic that is compacted.

use ropewalk_proto::batch::{BatchError, BatchView};
use ropewalk_proto::error::{ErrorCode, WireError};

use super::UNPACKED_BYTES;

/// Refuses a batch with a record that has no key, or with records that can't be looked at.
pub(in crate::partition) fn check(batch: &BatchView) -> Result<(), WireError> {
    let broken = |error: BatchError| match error {
        // Its own words are for readers, who may raise their bound.
        BatchError::Expands { .. } => WireError::new(
            error.code(),
            format!(
                "the records of the batch unpack to more than {} MiB, the most where the topic is \
                 compacted; send them in smaller batches",
                UNPACKED_BYTES >> 20
            ),
        ),
        error => WireError::new(error.code(), error.to_string()),
    };
    for (number, record) in batch
        .iter_records(UNPACKED_BYTES)
        .map_err(broken)?
        .enumerate()
    {
        if record.map_err(broken)?.key.is_none() {
            return Err(WireError::new(
                ErrorCode::InvalidRequest,
                format!(
                    "record {number} of the batch has no key, and the topic is compacted: of each key \
                     it keeps the last record; give every record a key, or set cleanup=delete"
                ),
            ));
        }
    }
    Ok(())
}
